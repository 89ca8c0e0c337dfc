//! Command lines.

use std::{collections::BTreeMap, ffi::OsString, fs};

use clap::{Arg, Command, Parser, error::ErrorKind};

const HELP: &str = "\
Secrets and URLs can come from files: of each variable X whose value is not shown above, X_FILE names one.";

/// The program's arguments, or those of the command that it does by default, with what their variables say.
/// Exits with a hint where they are wrong.
#[must_use]
pub fn parse<C: Parser>(default: &str) -> C {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.len() < 2 {
        arguments.push(default.into());
    }
    let mut files = Files::default();
    let mut command = files.supply(C::command());
    let read = match files.wrong {
        Some(wrong) => Err(clap::Error::raw(ErrorKind::ValueValidation, wrong)),
        None => command.try_get_matches_from_mut(arguments),
    };
    let parsed = read.and_then(|mut matches| C::from_arg_matches_mut(&mut matches));
    parsed.unwrap_or_else(|error| error.format(&mut command).exit())
}

/// The files that variables `X_FILE` name.
#[derive(Default)]
struct Files {
    /// What stood in them, by X: many commands have the same one, and a pipe tells it once.
    read: BTreeMap<String, Option<String>>,
    /// What is wrong with one of them.
    wrong: Option<String>,
}

impl Files {
    /// The command, and each of its own, with what stands in the files of its secrets.
    fn supply(&mut self, command: Command) -> Command {
        let has_secrets = command.get_arguments().any(|argument| secret(argument).is_some());
        let command = command.mut_args(|argument| {
            let Some(variable) = secret(&argument) else { return argument };
            let Some(value) = self.value(variable) else { return argument };
            // Less than the variable and the argument; it is not shown.
            argument.default_value(value).hide_default_value(true).required(false)
        });
        let command = if has_secrets { with_help(command) } else { command };
        command.mut_subcommands(|command| self.supply(command))
    }

    fn value(&mut self, variable: String) -> Option<String> {
        let Self { read, wrong } = self;
        let value = read.entry(variable).or_insert_with_key(|variable| {
            value(variable).unwrap_or_else(|error| {
                *wrong = Some(error);
                None
            })
        });
        value.clone()
    }
}

fn with_help(command: Command) -> Command {
    let help = command.get_after_help().map_or_else(String::new, |help| format!("\n{help}"));
    command.after_help(format!("{HELP}{help}"))
}

/// The variable of an argument that is a secret.
fn secret(argument: &Arg) -> Option<String> {
    let variable = argument.get_env().filter(|_| argument.is_hide_env_values_set())?;
    variable.to_str().map(str::to_owned)
}

/// What stands in the file that belongs to the variable, if there is one.
fn value(variable: &str) -> Result<Option<String>, String> {
    let of_file = format!("{variable}_FILE");
    let Some(path) = std::env::var_os(&of_file) else { return Ok(None) };
    if std::env::var_os(variable).is_some() {
        return Err(format!("{variable} and {of_file} are both set: which one counts?"));
    }
    let read = fs::read_to_string(&path);
    let text = read.map_err(|error| format!("{of_file}: {}: {error}", path.display()))?;
    // Editors and `echo` end it with a newline.
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}
