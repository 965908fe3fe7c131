//! What trades, published bars and splits become.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tape::{CONTROL, DEAD_LETTER, PRICES, Tape};
use super::*;

const LOOSE: Bounds = Bounds { bars_max: 1_000_000, symbols_max: 100 };

/// Draws what is put on a tape of one partition.
fn shown(put: impl FnOnce(&Tape), timeframe: Timeframe, window: &Window, now: Millis) -> Page {
    let tape = Tape::new(1);
    put(&tape);
    let (dir, log): (_, Arc<dyn Topics>) = (tempfile::tempdir().unwrap(), Arc::new(tape));
    let charts = started(&log, options(dir.path()));
    charts.bars(&symbol("AAPL"), timeframe, window, now).unwrap()
}

/// (minute, open, high, low, close, volume)
fn plain(page: &Page) -> Vec<(Millis, f64, f64, f64, f64, Option<f64>)> {
    page.bars.iter().map(|bar| ((bar.start - T0) / MINUTE, bar.open, bar.high, bar.low, bar.close, bar.volume)).collect()
}

fn minutes(put: &[(&str, &str, Millis)]) -> Page {
    let put = |tape: &Tape| {
        for (price, size, at) in put {
            tape.put(PRICES, 0, LATER, &trade("AAPL", price, size, T0 + at));
        }
    };
    shown(put, Timeframe::Minute, &window(), LATER)
}

#[test]
fn trades_build_half_open_bars_and_a_minute_without_trades_is_a_gap() {
    let page = minutes(&[("10", "1", 0), ("12.5", "2", 30_000), ("9", "3", 59_999), ("11", "4", 60_000), ("8", "5", 4 * MINUTE)]);
    let expected = [(0, 10.0, 12.5, 9.0, 9.0, Some(6.0)), (1, 11.0, 11.0, 11.0, 11.0, Some(4.0)), (4, 8.0, 8.0, 8.0, 8.0, Some(5.0))];
    assert_eq!(plain(&page), expected);
    assert_eq!(page.bars.iter().map(|bar| bar.trades).collect::<Vec<_>>(), [3, 1, 1]);
}

#[test]
fn a_late_trade_joins_the_bar_of_its_own_time_and_moves_open_and_close_only_by_that_time() {
    let page = minutes(&[("10", "1", 20_000), ("11", "1", MINUTE), ("9", "1", 10_000), ("12", "1", 15_000)]);
    assert_eq!(plain(&page)[0], (0, 9.0, 12.0, 9.0, 10.0, Some(3.0)), "the earliest opens, the latest closes");
    let page = minutes(&[("10", "1", 5), ("11", "1", 5), ("12", "1", 5)]);
    assert_eq!(plain(&page)[0], (0, 10.0, 12.0, 10.0, 12.0, Some(3.0)), "at the same time the log's order counts");
}

#[test]
fn a_trade_is_not_later_than_the_log_took_it_and_has_the_logs_time_without_its_own() {
    let put = |tape: &Tape| {
        tape.put(PRICES, 0, T0 + 1, &trade("AAPL", "10", "1", T0 + 500 * MINUTE));
        tape.put(PRICES, 0, T0 + MINUTE, r#"{"event":"trade","symbol":"AAPL","price":"11"}"#);
    };
    let page = shown(put, Timeframe::Minute, &window(), LATER);
    assert_eq!(plain(&page), [(0, 10.0, 10.0, 10.0, 10.0, Some(1.0)), (1, 11.0, 11.0, 11.0, 11.0, None)], "and no size is no volume");
}

#[test]
fn only_a_bar_whose_interval_lasts_is_in_the_making() {
    let put = |tape: &Tape| {
        tape.put(PRICES, 0, LATER, &trade("AAPL", "10", "1", T0));
        tape.put(PRICES, 0, LATER, &trade("AAPL", "10", "1", T0 + MINUTE));
    };
    let flags = |now| shown(put, Timeframe::Minute, &window(), now).bars.iter().map(|bar| bar.in_progress).collect::<Vec<_>>();
    assert_eq!(flags(T0 + 2 * MINUTE - 1), [false, true]);
    assert_eq!(flags(T0 + 2 * MINUTE), [false, false]);
    assert_eq!(flags(T0 + MINUTE - 1), [true, true]);
    // 6 March in New York lasts until 05:00Z.
    let day = |now| shown(put, Timeframe::Day, &window(), now).bars[0].in_progress;
    assert_eq!((day(T0 + 13 * 60 * MINUTE), day(T0 + 14 * 60 * MINUTE)), (true, false));
}

#[test]
fn a_published_bar_wins_over_trades_in_its_own_timeframe_and_a_later_one_over_an_earlier() {
    let bar = |close: &str| {
        format!(
            r#"{{"event":"bar","symbol":"AAPL","timeframe":"1m","open_time":{T0},"open":"1","high":"9","low":"1","close":"{close}","volume":"7"}}"#
        )
    };
    let put = |tape: &Tape| {
        tape.put(PRICES, 0, LATER, &trade("AAPL", "10", "1", T0));
        tape.put(PRICES, 0, LATER, &bar("5"));
        tape.put(PRICES, 0, LATER, &bar("6"));
        tape.put(PRICES, 0, LATER, &trade("AAPL", "20", "1", T0 + 1));
    };
    let page = shown(put, Timeframe::Minute, &window(), LATER);
    assert_eq!(plain(&page), [(0, 1.0, 9.0, 1.0, 6.0, Some(7.0))]);
    assert!(page.bars[0].published);
    let page = shown(put, Timeframe::FiveMinutes, &window(), LATER);
    assert_eq!(plain(&page), [(0, 10.0, 20.0, 10.0, 20.0, Some(2.0))], "a published minute says nothing of five");
}

#[test]
fn a_published_bar_may_leave_out_all_but_its_close_and_is_ignored_when_it_contradicts_itself() {
    let put = |tape: &Tape| {
        let bar = |timeframe: &str, at: Millis, rest: &str| {
            let payload = format!(r#"{{"event":"bar","symbol":"AAPL","timeframe":"{timeframe}","open_time":{at},{rest}}}"#);
            tape.put(PRICES, 0, LATER, &payload);
        };
        bar("1min", T0, r#""close":"5""#);
        bar("1min", T0 + MINUTE, r#""open":"7","close":"5""#);
        bar("1min", T0 + 2 * MINUTE, r#""open":"7","high":"6","low":"1","close":"5""#);
        bar("1min", T0 + 3 * MINUTE, r#""low":"6","close":"5""#);
        bar("2min", T0 + 4 * MINUTE, r#""close":"5""#);
        bar("1min", T0 + 5 * MINUTE, r#""close":"-5""#);
        tape.put(PRICES, 0, LATER, r#"{"event":"quote","symbol":"AAPL","bid":"1","ask":"2"}"#);
        tape.put(PRICES, 0, LATER, "{nonsense");
    };
    let page = shown(put, Timeframe::Minute, &window(), LATER);
    assert_eq!(plain(&page), [(0, 5.0, 5.0, 5.0, 5.0, None), (1, 7.0, 7.0, 5.0, 5.0, None)]);
}

#[test]
fn pages_follow_each_other_without_a_gap_or_a_repeat() {
    let tape = Tape::new(1);
    for i in 0..300 {
        tape.put(PRICES, 0, LATER, &trade("AAPL", "10", "1", T0 + i * MINUTE));
    }
    let (dir, log): (_, Arc<dyn Topics>) = (tempfile::tempdir().unwrap(), Arc::new(tape));
    let charts = started(&log, options(dir.path()));
    let ask = |start, end, limit| {
        let window = Window { start, end, limit, adjusted: true };
        let page = charts.bars(&symbol("AAPL"), Timeframe::Minute, &window, LATER).unwrap();
        (page.bars.iter().map(|bar| (bar.start - T0) / MINUTE).collect::<Vec<_>>(), page.next)
    };
    for limit in [1, 7, 64, 65, 299, 300, 301] {
        let (mut seen, mut from) = (Vec::new(), Some(T0));
        while let Some(start) = from {
            let (bars, next) = ask(Some(start), None, limit);
            assert!(bars.len() <= limit);
            seen.extend(bars);
            from = next;
        }
        assert_eq!(seen, (0..300).collect::<Vec<_>>(), "limit {limit}");
    }
    assert_eq!(ask(Some(T0 + MINUTE), Some(T0 + 3 * MINUTE), 10), (vec![1, 2], None), "the end is not in the window");
    assert_eq!(ask(Some(T0 + 1), Some(T0 + MINUTE), 10), (vec![], None), "a bar that began before the window is not in it");
    assert_eq!(ask(None, None, 3), (vec![297, 298, 299], None), "without a start the newest");
    assert_eq!(ask(None, Some(T0 + 100 * MINUTE), 2), (vec![98, 99], None));
    assert_eq!(ask(None, Some(T0), 2), (vec![], None));
    assert_eq!(charts.bars(&symbol("MSFT"), Timeframe::Minute, &window(), LATER), Err(ChartError::UnknownSymbol));
    assert_eq!(charts.newest(&symbol("AAPL"), Timeframe::Minute, LATER).unwrap().unwrap().start, T0 + 299 * MINUTE);
}

#[test]
fn a_split_restates_what_the_log_had_before_it_unless_the_gate_refused_it() {
    let split = r#"{"event":"split","symbol":"AAPL","from":"1","to":"4"}"#;
    let letter = |offset: u64| {
        format!(
            r#"{{"reason":"MALFORMED","message":"","source":{{"topic":"gate.control","partition":0,"offset":{offset}}},"key":null,"payload":""}}"#
        )
    };
    let put = |tape: &Tape| {
        tape.put(PRICES, 0, T0 + 1, &trade("AAPL", "100", "3", T0));
        tape.put(CONTROL, 0, T0 + MINUTE, split);
        tape.put(PRICES, 0, T0 + MINUTE + 1, &trade("AAPL", "26", "10", T0 + MINUTE));
        tape.put(PRICES, 0, T0 + MINUTE + 2, &trade("AAPL", "27", "10", T0 + 30_000));
    };
    let raw = Window { adjusted: false, ..window() };
    let last = (1, 26.0, 26.0, 26.0, 26.0, Some(10.0));
    let mixed = (0, 100.0, 100.0, 27.0, 27.0, Some(13.0));
    let straddling = plain(&shown(put, Timeframe::Minute, &window(), LATER));
    assert_eq!(straddling, [mixed, last], "a bar of both sides stays as it is");
    let only_before = |tape: &Tape| {
        tape.put(PRICES, 0, T0 + 1, &trade("AAPL", "100", "3", T0));
        tape.put(CONTROL, 0, T0 + MINUTE, split);
        tape.put(PRICES, 0, T0 + MINUTE + 1, &trade("AAPL", "26", "10", T0 + MINUTE));
    };
    assert_eq!(plain(&shown(only_before, Timeframe::Minute, &window(), LATER)), [(0, 25.0, 25.0, 25.0, 25.0, Some(12.0)), last]);
    assert_eq!(plain(&shown(only_before, Timeframe::Minute, &raw, LATER))[0].1, 100.0, "raw bars are as they were said");
    let refused = |tape: &Tape| {
        only_before(tape);
        tape.put(DEAD_LETTER, 0, T0 + MINUTE, &letter(0));
    };
    assert_eq!(plain(&shown(refused, Timeframe::Minute, &window(), LATER))[0].1, 100.0);
}

#[test]
fn a_refusal_that_is_read_before_its_split_counts() {
    let (mut early, from, to) = (splits::Splits::default(), crate::domain::Qty::whole(1), crate::domain::Qty::whole(2));
    early.refuse(7, 5);
    early.split(symbol("A"), 7, T0, (from, to));
    early.forget_below(8);
    assert_eq!(early, splits::Splits::default());
    early.split(symbol("A"), 8, T0, (from, to));
    assert_ne!(early, splits::Splits::default());
    early.refuse(8, 9);
    assert_eq!(early, splits::Splits::default());
}

#[test]
fn symbols_beyond_the_bound_draw_nothing_and_older_bars_leave() {
    let bounds = Bounds { bars_max: 100, symbols_max: 1 };
    let trades = (0..1_000).map(|i| record(i, LATER, &trade(if i % 2 == 0 { "A" } else { "B" }, "10", "1", T0 + i as i64 * MINUTE)));
    let projection = projected(bounds, &[(0, trades.collect())]);
    assert_eq!(projection.symbols().count(), 1);
    let (_, bars) = projection.find(&symbol("A")).unwrap();
    let minutes = &bars.series[Timeframe::Minute.place()];
    assert!(minutes.count() >= 100 && minutes.count() < 100 + series::CHUNK_BARS, "{}", minutes.count());
    let newest = minutes.range((0, Millis::MAX), usize::MAX, 100, &|_| Err::<Vec<Bar>, ()>(())).unwrap();
    assert_eq!((newest.len(), newest[0].start), (100, T0 + 800 * MINUTE), "just the newest are shown");
}

/// Minutes from the beginning, price in cents, size.
fn ticks() -> impl Strategy<Value = Vec<(i64, i64, u32)>> {
    prop::collection::vec((0_i64..3 * 24 * 3_600, 1_i64..100_000, 0_u32..1_000), 1..400)
}

fn cents(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn tape_of(ticks: &[(i64, i64, u32)]) -> Vec<StoredRecord> {
    let payload = |(second, price, size): &(i64, i64, u32)| trade("AAPL", &cents(*price), &size.to_string(), T0 + second * 1_000);
    (0..).zip(ticks).map(|(offset, tick)| record(offset, LATER, &payload(tick))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_coarse_bar_is_the_sum_of_the_fine_ones(ticks in ticks()) {
        let projection = projected(LOOSE, &[(0, tape_of(&ticks))]);
        let (_, bars) = projection.find(&symbol("AAPL")).unwrap();
        let of = |timeframe: Timeframe| {
            bars.series[timeframe.place()].range((0, Millis::MAX), usize::MAX, usize::MAX, &|_| Err::<Vec<Bar>, ()>(())).unwrap()
        };
        let days = Days::of_zone("America/New_York").unwrap();
        for pair in Timeframe::ALL.windows(2) {
            // Four hours of UTC do not tile a day of New York, hours do.
            let fine = if pair[1] == Timeframe::Day { Timeframe::Hour } else { pair[0] };
            let mut summed: BTreeMap<Millis, Bar> = BTreeMap::new();
            for bar in of(fine) {
                let start = days.interval(pair[1], bar.start).unwrap().start;
                let piece = Bar { start, ..bar };
                summed.entry(start).and_modify(|sum| *sum = sum.merge(piece)).or_insert(piece);
            }
            prop_assert_eq!(summed.into_values().collect::<Vec<_>>(), of(pair[1]), "{}", pair[1].as_str());
        }
    }

    #[test]
    fn bars_are_what_sorting_and_grouping_gives(ticks in ticks()) {
        let projection = projected(LOOSE, &[(0, tape_of(&ticks))]);
        let (_, bars) = projection.find(&symbol("AAPL")).unwrap();
        let shown = bars.series[Timeframe::QuarterHour.place()].range((0, Millis::MAX), usize::MAX, usize::MAX, &|_| Err::<Vec<Bar>, ()>(())).unwrap();
        let mut sorted: Vec<_> = ticks.clone();
        sorted.sort_by_key(|(second, _, _)| *second);
        let groups: Vec<_> = sorted.chunk_by(|a, b| (T0 / 1_000 + a.0) / 900 == (T0 / 1_000 + b.0) / 900).collect();
        prop_assert_eq!(groups.len(), shown.len());
        for (group, bar) in groups.iter().zip(&shown) {
            let prices = || group.iter().map(|(_, price, _)| price * 1_000_000);
            let volume: i128 = group.iter().map(|(_, _, size)| i128::from(*size) * 100_000_000).sum();
            prop_assert_eq!(bar.open.0, group[0].1 * 1_000_000);
            prop_assert_eq!(bar.close.0, group[group.len() - 1].1 * 1_000_000);
            prop_assert_eq!((bar.high.0, bar.low.0), (prices().max().unwrap(), prices().min().unwrap()));
            prop_assert_eq!((bar.volume, bar.trades), (Some(volume), group.len() as u64));
        }
    }

    #[test]
    fn the_order_in_which_partitions_are_read_draws_no_other_bars(ticks in ticks(), cuts in prop::collection::vec(1_usize..40, 1..60), seed in any::<u64>()) {
        // Partition 1 gets every third trade; batches of the two come in any interleaving; old bars leave on the way.
        let bounds = Bounds { bars_max: 100, symbols_max: 10 };
        let (two, one): (Vec<_>, Vec<_>) = tape_of(&ticks).into_iter().partition(|record| record.offset % 3 == 0);
        let whole = projected(bounds, &[(0, one.clone()), (1, two.clone())]);
        let (mut one, mut two, mut batches, mut at) = (one.as_slice(), two.as_slice(), Vec::new(), 0_usize);
        while !one.is_empty() || !two.is_empty() {
            let cut = cuts[at % cuts.len()];
            let (partition, from) = if seed >> (at % 64) & 1 == 0 { (0, &mut one) } else { (1, &mut two) };
            let (batch, rest) = from.split_at(cut.min(from.len()));
            batches.push((partition, batch.to_vec()));
            *from = rest;
            at += 1;
            // A seed of one bit only would starve a partition.
            if at > 5_000 { batches.extend([(0, one.to_vec()), (1, two.to_vec())]); break; }
        }
        prop_assert_eq!(dump_warm(&projected(bounds, &batches)), dump_warm(&whole));
    }

    #[test]
    fn bars_come_back_from_bytes_as_they_were_and_nothing_else_does(ticks in ticks(), published in any::<bool>()) {
        let projection = projected(LOOSE, &[(0, tape_of(&ticks))]);
        let (_, of) = projection.find(&symbol("AAPL")).unwrap();
        let mut bars = of.series[0].range((0, Millis::MAX), usize::MAX, usize::MAX, &|_| Err::<Vec<Bar>, ()>(())).unwrap();
        if published {
            bars[0].origin = Origin::Published(Stamp { at: 0, partition: 3, offset: 9 });
            bars[0].volume = None;
        }
        let bytes = encode_all(&bars);
        prop_assert_eq!(bar::decode_all(&bytes, bars.len()).unwrap(), bars.clone());
        prop_assert!(bar::decode_all(&bytes[..bytes.len() - 1], bars.len()).is_err());
        prop_assert!(bar::decode_all(&bytes, bars.len() + 1).is_err());
    }
}
