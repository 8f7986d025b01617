//! `--help` and the reference page of the environment, both from the table.

use std::fmt::Write as _;

use super::table::{self, NOT_CARRIED_OUT, WITHOUT_EFFECT};

/// The text of `tulle-proxy --help`.
pub fn text() -> String {
    let mut page = String::from(
        "tulle-proxy: the sidecar of the Tulle service mesh\n\n\
         Usage:\n  \
         tulle-proxy                 run; configured by the environment below\n  \
         tulle-proxy init [options]  write the packet-filter rules that lead a pod's traffic here (init --help)\n  \
         tulle-proxy --check         say what is wrong with the environment below, and end\n  \
         tulle-proxy --version | --help\n\n\
         Example:\n  \
         LINKERD2_PROXY_IDENTITY_DISABLED=1 LINKERD2_PROXY_LOG=info tulle-proxy\n\n\
         Exit codes: 0 ended as asked, 1 failed, 2 wrong usage, 64 an environment variable cannot be used.\n\n\
         Environment (an empty value counts as unset):\n",
    );
    for (title, variables) in table::groups() {
        let _ = writeln!(page, "\n{title}");
        for variable in variables {
            let default = match variable.default {
                "" => "no default".to_owned(),
                default => format!("default {default}"),
            };
            let kind = variable.form.kind();
            let _ = writeln!(page, "  {} ({kind}; {default})", variable.name);
            let _ = writeln!(page, "      {}", variable.meaning);
            let _ = writeln!(page, "      Accepts {}.", variable.form.accepts());
        }
    }
    page.push_str("\nAccepted, not carried out (a warning at start):\n");
    for (name, why) in NOT_CARRIED_OUT {
        let _ = writeln!(page, "  {name}: {why}");
    }
    page.push_str("\nAccepted, without effect:\n");
    for (name, why) in WITHOUT_EFFECT {
        let _ = writeln!(page, "  {name}: {why}");
    }
    page
}

/// The page `docs/reference/environment.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# The sidecar's environment\n\n\
         <!-- Generated from crates/proxy/src/config/table.rs by `cargo run -p tulle-proxy --example reference`. -->\n\n\
         The names are Linkerd's, so that either proxy runs under either injector; what only Tulle has begins with\n\
         `TULLE_PROXY_`. An empty value counts as unset. The proxy reports every value that it cannot use at once and\n\
         exits with code 64; `tulle-proxy --check` does only that. A name of this form that it does not know is warned of,\n\
         with the one that was probably meant.\n",
    );
    for (title, variables) in table::groups() {
        let _ = write!(
            page,
            "\n## {title}\n\n| variable | type | accepts | default | meaning |\n|---|---|---|---|---|\n"
        );
        for variable in variables {
            let default = match variable.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {default} | {} |",
                variable.name,
                variable.form.kind(),
                variable.form.accepts().replace('|', "\\|"),
                variable.meaning
            );
        }
    }
    for (title, table) in [
        ("Accepted, not carried out", NOT_CARRIED_OUT),
        ("Accepted, without effect", WITHOUT_EFFECT),
    ] {
        let _ = write!(page, "\n## {title}\n\n| variable | why |\n|---|---|\n");
        for (name, why) in table {
            let _ = writeln!(page, "| `{name}` | {why} |");
        }
    }
    page
}
