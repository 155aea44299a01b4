//! `import`: the whole file is checked before anything is stored; then chunks go in, each all or nothing.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use vski_replication::names;
use vski_sync_agent::config::NodeArgs;

use super::target::{ChunkError, Line, Target};
use super::{Failure, block_on};
use crate::store::collections::{Collection, Wanted};
use crate::store::ids;
use crate::store::import as records;
use crate::store::records::{self as rows, Secrets, Sender};

/// Records that are stored together.
const CHUNK_LINES: usize = 500;

/// Bytes of text that are stored together.
const CHUNK_BYTES: usize = 1 << 20;

/// How long a server that went away in the middle is waited for.
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

#[derive(Args, Clone)]
pub struct ImportArgs {
    /// File of records, one JSON object a line
    pub file: PathBuf,
    /// The collection they go into
    #[arg(long)]
    pub collection: String,
    /// The database that has it
    #[arg(long, default_value = names::DEFAULT_DATABASE)]
    pub db: String,
    /// Make the collection if there is none, with fields as the file needs them; admins only may see it
    #[arg(long)]
    pub create: bool,
    /// Begin at this line, counted from 1
    #[arg(long, default_value_t = 1)]
    pub from_line: usize,
    #[command(flatten)]
    pub node: NodeArgs,
}

pub fn execute(args: &ImportArgs) -> Result<(), Failure> {
    let node = args.node.resolve().map_err(Failure::setup)?;
    block_on(async {
        let target = Target::find(&node)?;
        let imported = run(&target, args).await;
        tokio::task::block_in_place(|| target.close());
        println!("{}: {} records into {}", args.file.display(), imported?, args.collection);
        Ok(())
    })
}

async fn run(target: &Target, args: &ImportArgs) -> Result<usize, Failure> {
    let total = match target.collection(&args.db, &args.collection).await? {
        Some(collection) => check(args, &collection)?,
        None if args.create => {
            let all: Vec<Line> = lines(args)?.map(|line| line.map(|(_, line, _)| line)).collect::<Result<_, _>>()?;
            let fields = records::infer_fields(all.iter());
            let planned = Collection { name: args.collection.clone(), fields: fields.clone(), ..Collection::default() };
            let total = check(args, &planned)?;
            let wanted = Wanted { name: Some(args.collection.clone()), fields: Some(fields), ..Wanted::default() };
            target.create_collection(&args.db, wanted).await?;
            total
        }
        None => {
            let name = &args.collection;
            return Err(Failure::work(format!("there is no collection {name}: make it first, or pass --create")));
        }
    };
    store(target, args, total).await
}

/// Reads the whole file once: nothing is stored unless every line fits.
fn check(args: &ImportArgs, collection: &Collection) -> Result<usize, Failure> {
    let mut total = 0;
    for line in lines(args)? {
        let (number, line, _) = line?;
        let refused = |message: String| Failure::work(format!("{} line {number}: {message}", args.file.display()));
        if let Err(error) = rows::check(collection, Sender::Admin, &line, false, &Secrets::default()) {
            return Err(refused(records::describe(&error)));
        }
        total += 1;
    }
    Ok(total)
}

async fn store(target: &Target, args: &ImportArgs, total: usize) -> Result<usize, Failure> {
    let bar = ProgressBar::new(total as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records, {per_sec}, {eta} left");
    bar.set_style(style.expect("the template is a constant that parses"));
    let (mut done, mut bytes, mut numbers, mut chunk) = (0, 0, Vec::new(), Vec::new());
    let mut lines = lines(args)?.peekable();
    while let Some(line) = lines.next() {
        let (number, line, length) = line?;
        bytes += length;
        numbers.push(number);
        // With an id of its own a record can be sent twice and is stored once.
        let mut line = line;
        if line.get("id").and_then(serde_json::Value::as_str).is_none_or(str::is_empty) {
            line.insert("id".to_owned(), ids::record_id().into());
        }
        chunk.push(line);
        if chunk.len() < CHUNK_LINES && bytes < CHUNK_BYTES && lines.peek().is_some() {
            continue;
        }
        let (count, sent) = (chunk.len(), std::mem::take(&mut chunk));
        bytes = 0;
        insert(target, args, sent).await.map_err(|error| stopped(args, &numbers, done, error))?;
        done += count;
        numbers.clear();
        bar.set_position(done as u64);
    }
    bar.finish_and_clear();
    Ok(done)
}

/// Stores a chunk, whose records all have ids: where the connection broke it is sent again, and if then all its records
/// are there already, the first attempt had arrived.
async fn insert(target: &Target, args: &ImportArgs, chunk: Vec<Line>) -> Result<(), ChunkError> {
    let deadline = Instant::now() + RETRY_LIMIT;
    let mut again = false;
    loop {
        let sent = match target.insert(&args.db, &args.collection, chunk.clone()).await {
            Err(taken @ ChunkError::Line { id_taken: true, .. }) if again => {
                let there = target.has_all(&args.db, &args.collection, &chunk).await;
                there.and_then(|there| if there { Ok(()) } else { Err(taken) })
            }
            sent => sent,
        };
        match sent {
            Err(ChunkError::Unknown(_)) if Instant::now() < deadline => again = true,
            done => return done,
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// What was stored stays; the message says where to go on. `numbers` are the refused chunk's lines.
fn stopped(args: &ImportArgs, numbers: &[usize], done: usize, error: ChunkError) -> Failure {
    let (file, first) = (args.file.display(), numbers.first().copied().unwrap_or(args.from_line));
    let rest = format!("{done} records are stored; mend this and go on with --from-line {first}");
    match error {
        ChunkError::Line { line, message, .. } => {
            let number = numbers.get(line.saturating_sub(1)).copied().unwrap_or(first);
            Failure::work(format!("{file} line {number}: {message}; {rest}"))
        }
        ChunkError::Chunk(message) => Failure::work(format!("{file} from line {first}: {message}; {rest}")),
        ChunkError::Unknown(message) => {
            let last = numbers.last().copied().unwrap_or(first);
            Failure::work(format!(
                "{file}: {message}; {done} records are stored for certain, lines {first} to {last} perhaps: look before going on"
            ))
        }
    }
}

/// The file's records with their line number and length in bytes; blank lines are skipped.
fn lines(args: &ImportArgs) -> Result<impl Iterator<Item = Result<(usize, Line, usize), Failure>> + use<>, Failure> {
    let file = args.file.clone();
    let opened =
        File::open(&file).map_err(|error| Failure::setup(format!("cannot read {}: {error}", file.display())))?;
    let numbered = BufReader::new(opened).lines().enumerate().skip(args.from_line.max(1) - 1);
    Ok(numbered.filter_map(move |(at, text)| {
        let refused = |message: String| Failure::work(format!("{} line {}: {message}", file.display(), at + 1));
        match text {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(records::parse_line(&text).map(|line| (at + 1, line, text.len())).map_err(refused)),
            Err(error) => Some(Err(refused(error.to_string()))),
        }
    }))
}
