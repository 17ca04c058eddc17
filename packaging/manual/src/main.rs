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
    use std::process::Command;

    fn page(folder: &Path, command: &clap::Command) -> String {
        let name = command.get_display_name().unwrap_or(command.get_name()).replace(' ', "-");
        fs::read_to_string(folder.join(format!("man/{name}.1"))).unwrap().replace("\\-", "-")
    }

    fn assert_complete(folder: &Path, command: &clap::Command) {
        let text = page(folder, command);
        for long in command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| arg.get_long())
        {
            assert!(text.contains(&format!("--{long}")), "{} lacks --{long}", command.get_name());
        }
        for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help") {
            assert_complete(folder, subcommand);
        }
    }

    #[test]
    fn each_option_is_in_the_manual_page_and_bash_completes_commands_and_options() {
        let folder = env::temp_dir().join(format!("wal-archive-manual-{}", std::process::id()));
        write(&folder).unwrap();
        for mut command in wal_archive::cli::commands() {
            command.build();
            assert_complete(&folder, &command);
        }
        let page = fs::read_to_string(folder.join("man/wal-fetch.1")).unwrap();
        assert!(page.contains("Exit codes") && page.contains("24 / 224"), "{page}");
        let script = folder.join("bash/wal-archive.bash");
        let completes = |words: &[&str]| {
            let count = words.len() - 1;
            let last = words.last().unwrap();
            let previous = words.get(count - 1).unwrap();
            let call = format!(
                ". {}; COMP_WORDS=({}); COMP_CWORD={count}; _wal__archive wal-archive '{last}' '{previous}'; echo \"${{COMPREPLY[@]}}\"",
                script.display(),
                words.join(" "),
            );
            let output = Command::new("bash").args(["-c", &call]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(completes(&["wal-archive", "ver"]), "verify");
        assert_eq!(completes(&["wal-archive", "verify", "--qu"]), "--quick");
        assert_eq!(completes(&["wal-archive", "check", "--rights", "pu"]), "push");
        fs::remove_dir_all(folder).unwrap();
    }
}
