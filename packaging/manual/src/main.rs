//! `wal-archive-manual DIRECTORY`: manual pages and completions, made of what the programs' own help is made of.
//!
//! A member of the workspace of its own, so that none of it is in the programs.

use clap_complete::Shell;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    match env::args_os().nth(1) {
        Some(directory) => write(Path::new(&directory)),
        None => Err(io::Error::other("usage: wal-archive-manual DIRECTORY")),
    }
}

fn write(directory: &Path) -> io::Result<()> {
    let [man, bash, zsh, fish] = ["man", "bash", "zsh", "fish"].map(|name| directory.join(name));
    for folder in [&man, &bash, &zsh, &fish] {
        fs::create_dir_all(folder)?;
    }
    for command in wal_archive::cli::commands() {
        let name = command.get_name().to_owned();
        for (shell, folder) in [(Shell::Bash, &bash), (Shell::Zsh, &zsh), (Shell::Fish, &fish)] {
            let script = clap_complete::generate_to(shell, &mut command.clone(), &name, folder)?;
            // In bash clap_complete 4.6 gives a command with a hyphen two names, so that nothing below it completes.
            let text = fs::read_to_string(&script)?;
            fs::write(&script, text.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__")))?;
        }
        clap_mangen::generate_to(command, &man)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use clap::Command;
    use std::path::PathBuf;
    use std::process;

    const SETTINGS: &str = include_str!("../../../docs/configuration.md");

    /// A directory with all that is made, removed at the end.
    struct Made(PathBuf);

    impl Made {
        fn new(test: &str) -> Self {
            let made =
                Made(env::temp_dir().join(format!("wal-archive-manual-{}-{test}", std::process::id())));
            write(&made.0).unwrap();
            made
        }

        fn page(&self, command: &Command) -> String {
            let name = command.get_display_name().unwrap_or(command.get_name()).replace(' ', "-");
            fs::read_to_string(self.0.join(format!("man/{name}.1"))).unwrap().replace("\\-", "-")
        }

        /// What a real bash offers for the last word, by the completions of the program that is the first.
        fn completes(&self, words: &[&str]) -> String {
            let (program, last) = (words.first().unwrap(), words.last().unwrap());
            let call = format!(
                ". {script}; COMP_WORDS=({line}); COMP_CWORD={count}; {function} {program} '{last}' '{previous}'; \
                 echo \"${{COMPREPLY[@]}}\"",
                script = self.0.join(format!("bash/{program}.bash")).display(),
                line = words.iter().map(|word| format!("'{word}' ")).collect::<String>(),
                count = words.len() - 1,
                function = format!("_{program}").replace('-', "__"),
                previous = words.get(words.len() - 2).unwrap(),
            );
            let output = process::Command::new("bash").args(["-c", &call]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// The options that the help shows, as `--name`: each begins a row below a heading of options.
    fn options(command: &Command) -> Vec<String> {
        let help = command.clone().render_long_help().to_string();
        let (mut options, mut below) = (Vec::new(), false);
        for line in help.lines() {
            if !line.starts_with([' ', '"']) && line.ends_with(':') {
                below = line.to_lowercase().contains("options");
            } else if below && (line.starts_with("  -") || line.starts_with("      --")) {
                let words = line.split(|mark: char| !mark.is_alphanumeric() && mark != '-');
                options.extend(words.map(str::to_owned).find(|word| word.starts_with("--")));
            }
        }
        options
    }

    fn has(text: &str, option: &str) -> bool {
        text.match_indices(option).any(|(at, _)| {
            let next = text.get(at + option.len()..).and_then(|rest| rest.chars().next());
            next.is_none_or(|next| !next.is_alphanumeric() && next != '-')
        })
    }

    /// Each program, and each command of wal-archive, with the words that call it.
    fn all() -> Vec<(Vec<String>, Command)> {
        let mut all = Vec::new();
        for mut program in wal_archive::cli::commands() {
            program.build();
            let name = program.get_name().to_owned();
            for command in program.get_subcommands().filter(|one| one.get_name() != "help") {
                all.push((vec![name.clone(), command.get_name().to_owned()], command.clone()));
            }
            all.push((vec![name], program));
        }
        assert!(all.len() > 18, "{}", all.len());
        all
    }

    #[test]
    fn each_option_of_each_help_is_in_the_manual_page_and_in_the_page_of_settings() {
        let made = Made::new("options");
        for (words, command) in all() {
            let page = made.page(&command);
            let options = options(&command);
            assert!(options.len() > 4, "{words:?} {options:?}");
            for option in options {
                assert!(has(&page, &option), "the manual page of {words:?} lacks {option}");
                assert!(has(SETTINGS, &option), "docs/configuration.md lacks {option} of {words:?}");
            }
        }
        let page = fs::read_to_string(made.0.join("man/wal-fetch.1")).unwrap();
        assert!(page.contains("Exit codes") && page.contains("24 / 224"), "{page}");
    }

    #[test]
    fn bash_completes_each_command_and_each_option() {
        let made = Made::new("completions");
        let offered = made.completes(&["wal-archive", ""]);
        for (words, command) in all() {
            let mut line: Vec<&str> = words.iter().map(String::as_str).collect();
            if let [_, command] = line.as_slice() {
                assert!(offered.split(' ').any(|word| word == *command), "{command} is not in {offered}");
            }
            line.push("--");
            let offered = made.completes(&line);
            for option in options(&command) {
                assert!(offered.split(' ').any(|word| word == option), "{line:?} lacks {option}: {offered}");
            }
        }
        assert_eq!(made.completes(&["wal-archive", "ver"]), "verify");
        assert_eq!(made.completes(&["wal-archive", "verify", "--qu"]), "--quick");
        assert_eq!(made.completes(&["wal-archive", "check", "--rights", "pu"]), "push");
    }
}
