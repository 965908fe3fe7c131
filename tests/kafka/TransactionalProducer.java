// Writes lines `TOPIC<TAB>PARTITION or -<TAB>KEY<TAB>VALUE` of standard input in transactions of N records, and aborts every K-th of
// them on purpose (K = 0: none). An aborted record has reached its topic, takes an offset, and no committed reader sees it.
// Prints `committed` or `aborted`, then `TOPIC<TAB>PARTITION<TAB>OFFSET<TAB>VALUE` for each record, tab-separated, in order.
//
//   java -cp "libs/*" TransactionalProducer.java BROKERS TRANSACTIONAL-ID N K <lines

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
import org.apache.kafka.common.serialization.StringSerializer;

public class TransactionalProducer {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("transactional.id", arguments[1]);
        int size = Integer.parseInt(arguments[2]);
        int abortEvery = Integer.parseInt(arguments[3]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
            List<String> batch = next(in, size);
            for (int number = 1; !batch.isEmpty(); number++, batch = next(in, size)) {
                boolean abort = abortEvery > 0 && number % abortEvery == 0;
                transaction(producer, batch, abort, out);
            }
        }
        out.flush();
    }

    private static List<String> next(BufferedReader in, int size) throws Exception {
        List<String> batch = new ArrayList<>();
        for (String line; batch.size() < size && (line = in.readLine()) != null; ) {
            batch.add(line);
        }
        return batch;
    }

    private static void transaction(KafkaProducer<String, String> producer, List<String> batch, boolean abort, PrintStream out) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        List<String> values = new ArrayList<>();
        producer.beginTransaction();
        for (String line : batch) {
            String[] fields = line.split("\t", 4);
            Integer partition = fields[1].equals("-") ? null : Integer.valueOf(fields[1]);
            values.add(fields[3]);
            sent.add(producer.send(new ProducerRecord<>(fields[0], partition, fields[2], fields[3])));
        }
        // Without this an aborted transaction's records might never leave the client.
        producer.flush();
        if (abort) {
            producer.abortTransaction();
        } else {
            producer.commitTransaction();
        }
        for (int i = 0; i < sent.size(); i++) {
            RecordMetadata at = sent.get(i).get();
            out.println(String.join("\t", abort ? "aborted" : "committed", at.topic(), "" + at.partition(), "" + at.offset(), values.get(i)));
        }
    }
}
