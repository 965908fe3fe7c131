//! Every command's help, main paths and refusals, as text (`tests/cli/*.trycmd`; `TRYCMD=overwrite` rewrites them).

#[test]
fn commands_say_what_they_do_and_what_is_wrong() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd").run();
}
