// Produces each line of standard input as a key, lets Java's default partitioner choose, and prints `KEY<TAB>PARTITION`, in order.
//
//   java -cp "libs/*" DefaultPartitionerProducer.java BROKERS TOPIC <keys

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class DefaultPartitionerProducer {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("acks", "all");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        List<String> keys = new ArrayList<>();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String key = in.readLine(); key != null; key = in.readLine()) {
                byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
                keys.add(key);
                sent.add(producer.send(new ProducerRecord<>(arguments[1], bytes, bytes)));
            }
            for (int i = 0; i < keys.size(); i++) {
                out.println(keys.get(i) + "\t" + sent.get(i).get().partition());
            }
        }
        out.flush();
    }
}
