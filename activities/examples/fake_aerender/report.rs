//! What the application says of a render, in the order and with the blanks of its queue's log.

use super::{
    project::Item,
    scenario::{Locale, Time},
    words::words,
};

/// The block before the first frame. Lines of the queue's log have two blanks, the script's own have one.
pub fn opening(item: &Item, locale: Locale, time: Time, output: &str) -> Vec<String> {
    let w = words(locale);
    let composition = &item.composition;
    let [width, height] = composition.size;
    let fps = composition.fps;
    let (before, after) = w.starting;
    let mut lines = Vec::new();
    if item.added {
        lines.push("PROGRESS: Adding specified comp to Render Queue".to_owned());
    }
    let log = [
        format!("{}: {before}{}{after}", w.date, composition.name),
        "Render Settings: Best Settings".into(),
        "Quality: Best".into(),
        "Resolution: Full".into(),
        format!("Size: {width} x {height}"),
        "Proxy Use: Use No Proxies".into(),
        "Effects: Current Settings".into(),
        "Disk Cache: Read Only".into(),
        "Color Depth: Current Settings".into(),
        "Frame Blending: On for Checked Layers".into(),
        "Field Render: Off".into(),
        "Pulldown: Off".into(),
        "Motion Blur: On for Checked Layers".into(),
        "Solos: Current Settings".into(),
        "Time Span: Custom".into(),
        format!("{}: {}", w.start, moment(item.first, fps, time)),
        format!("{}: {}", w.end, moment(item.last, fps, time)),
        format!("{}: {}", w.duration, moment(item.last - item.first + 1, fps, time)),
        format!("{}: {fps}{}00 (comp)", w.frame_rate, w.comma),
        "Guide Layers: All Off".into(),
        "Skip Existing Files: Off".into(),
        String::new(),
        "Output Module: PNG Sequence".into(),
        format!("Output To: {output}"),
        "Format: PNG Sequence".into(),
        format!("Start Frame: {}", item.first),
        "Include: Project Link".into(),
        "Output Audio: Off".into(),
        "Channels: RGB + Alpha".into(),
        "Depth: Millions of Colors+".into(),
        "Color: Straight (Unmatted)".into(),
        "Resize: Off".into(),
        "Crop: Off".into(),
        format!("Final Size: {width} x {height}"),
        "Post-Render Action: None".into(),
        String::new(),
    ];
    for (n, line) in log.into_iter().enumerate() {
        lines.push(format!("PROGRESS:  {line}\r"));
        if n == 0 {
            lines.extend(["\r".to_owned(), "\r".to_owned()]);
        }
    }
    lines
}

/// A frame is done. The number in brackets counts this run's frames from 1.
pub fn frame(item: &Item, frame: u32, locale: Locale, time: Time) -> String {
    let moment = moment(frame, item.composition.fps, time);
    format!("PROGRESS:  {moment} ({}): 0 {}\r", frame - item.first + 1, words(locale).seconds)
}

pub fn closing(item: &Item, locale: Locale) -> Vec<String> {
    let w = words(locale);
    let (before, after) = w.finished;
    vec![
        format!("PROGRESS:  {}: {before}{}{after}\r", w.date, item.composition.name),
        "\r".into(),
        format!("PROGRESS:  {}: 0 {}\r", w.elapsed, w.seconds),
    ]
}

/// A number of frames as the project shows time.
fn moment(frame: u32, fps: u32, time: Time) -> String {
    let (seconds, rest) = (frame / fps, frame % fps);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    match time {
        Time::Timecode => format!("0:{minutes:02}:{seconds:02}:{rest:02}"),
        // Two numbers are left out each minute; no test renders so far.
        Time::DropFrame => format!("0;{minutes:02};{seconds:02};{rest:02}"),
        Time::Frames => frame.to_string(),
    }
}
