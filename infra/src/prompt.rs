//! Questions to the user. Ctrl-C is noticed while a question waits for its answer.

use std::{
    fs::File,
    future::pending,
    io::{self, Write},
    thread,
};

use nix::sys::{
    signal::{Signal, raise},
    termios::{SetArg, Termios, tcgetattr, tcsetattr},
};
use tokio::sync::oneshot;

/// Asks a question and reads the answer, without spaces around it. `None` if the input ended.
///
/// # Errors
///
/// The input cannot be read.
pub async fn line(question: &str) -> anyhow::Result<Option<String>> {
    print!("{question}");
    io::stdout().flush()?;
    read(|| {
        let mut answer = String::new();
        let length = io::stdin().read_line(&mut answer)?;
        Ok((length > 0).then(|| answer.trim().to_owned()))
    })
    .await
}

/// Asks for a secret, which is not shown. `None` if the input ended.
///
/// # Errors
///
/// There is no terminal.
pub async fn secret(question: &str) -> anyhow::Result<Option<String>> {
    let _echo = Echo::save()?;
    let question = question.to_owned();
    let secret = read(move || rpassword::prompt_password(question)).await;
    match secret.as_ref().err().and_then(|error| error.downcast_ref()).map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => Ok(None),
        // While a secret is typed, the terminal passes Ctrl-C on as a character.
        Some(io::ErrorKind::Interrupted) => {
            raise(Signal::SIGINT)?;
            pending().await
        }
        _ => secret.map(Some),
    }
}

/// Reads in a thread of its own. The end of the program does not wait for it, as it would for a thread of the runtime.
async fn read<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> anyhow::Result<T> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        // An interruption has dropped the receiver.
        let _ = sender.send(read());
    });
    Ok(receiver.await??)
}

/// The terminal's settings. Restores them when it is dropped, also by an interruption while the echo is off.
struct Echo(File, Termios);

impl Echo {
    fn save() -> anyhow::Result<Self> {
        let terminal = File::open("/dev/tty")?;
        let settings = tcgetattr(&terminal)?;
        Ok(Self(terminal, settings))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(&self.0, SetArg::TCSANOW, &self.1);
    }
}
