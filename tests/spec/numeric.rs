//! The value vectors that are computations: tail risk, drawdown, correlation, sizing.
//!
//! Invariant: numbers come from the file, and are compared to the digits that it gives.

use ordergate::domain::{Factor, Figure, Money, Price, Qty, UNITS_PER_ONE};
use ordergate::market::bars::pearson;
use ordergate::risk::sizing::{Sizing, SizingInput, Stop, size};
use ordergate::risk::statistics::{Confidence, drawdown, historical};
use rust_decimal::Decimal;
use serde_json::Value;

fn vector(id: &str) -> Value {
    crate::vectors::vectors().into_iter().find(|vector| vector["id"] == id).expect("a vector")
}

fn units(value: &Value) -> i64 {
    let scaled = crate::vectors::number(value) * Decimal::from(UNITS_PER_ONE);
    scaled.to_string().split('.').next().and_then(|whole| whole.parse().ok()).expect("a number in its domain")
}

fn money(value: &Value) -> Money {
    Money(i128::from(units(value)) * i128::from(UNITS_PER_ONE))
}

fn float(value: &Value) -> f64 {
    value.as_str().expect("a decimal").parse().expect("a decimal")
}

fn close_to(got: f64, wanted: &Value) {
    assert!((got - float(wanted)).abs() < 5e-7, "expected {wanted}, got {got}");
}

#[test]
fn v01_historical_value_at_risk_interpolates() {
    let vector = vector("V01");
    let returns: Vec<f64> = vector["input"]["returns"].as_array().expect("returns").iter().map(float).collect();
    let risk = historical(&returns, Confidence::P95).expect("a tail");
    close_to(risk.value_at_risk, &vector["expect"]["var_return"]);
    close_to(risk.expected_shortfall, &vector["expect"]["expected_shortfall_return(mean of returns <= -VaR)"]);
    let dollars = risk.value_at_risk * float(&vector["input"]["equity"]);
    assert!((dollars - float(&vector["expect"]["var_dollars"])).abs() < 1e-6);
}

#[test]
fn v02_drawdowns_of_an_equity_curve() {
    let vector = vector("V02");
    let curve: Vec<Money> = vector["input"]["equity"].as_array().expect("a curve").iter().map(money).collect();
    let seen = drawdown(&curve).expect("drawdowns");
    let expect = &vector["expect"];
    assert_eq!(seen.hwm, money(&expect["hwm"]));
    assert_eq!(seen.max, money(&expect["max_drawdown_dollars"]));
    assert_eq!(seen.max_percent, Figure::Units(units(&expect["max_drawdown_pct"]).into()));
    assert_eq!(seen.current_percent, Figure::Units(units(&expect["current_drawdown_pct"]).into()));
}

#[test]
fn v04_correlation_of_joined_returns() {
    let vector = vector("V04");
    let (a, b) = (&vector["input"]["A"], &vector["input"]["B"]);
    let common = vector["expect"]["common"].as_array().expect("times").iter();
    let pairs: Vec<(f64, f64)> = common.map(|time| (float(&a[time.to_string()]), float(&b[time.to_string()]))).collect();
    let rho = pearson(pairs.into_iter(), 5).expect("enough observations");
    close_to(rho as f64 / 1e9, &vector["expect"]["pearson_aligned"]);
}

#[test]
fn v05_v07_v08_sizes_are_rounded_down() {
    for id in ["V05", "V07", "V08"] {
        let vector = vector(id);
        let input = &vector["input"];
        let asked = SizingInput {
            equity: money(&input["equity"]),
            entry: Price(units(&input["entry"])),
            stop: Some(Stop { price: Price(units(&input["stop"])), risk_percent: Factor(units(&input["risk_pct"])) }),
            sizing_percent: Factor::whole(2),
            multiplier: Factor::ONE,
            lot: Qty::ONE,
        };
        let wanted = Sizing::Sized { qty: Qty(units(&vector["expect"]["qty"])), without_stop: false };
        assert_eq!(size(&asked), wanted, "{id}");
    }
}
