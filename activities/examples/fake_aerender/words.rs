//! The words of the application in the languages it speaks, and the bytes it writes them in.
//!
//! English, German and French follow public logs as far as these show them; the rest of those, and Japanese and
//! Korean, are our own words in the same places. Versions up to 2021 write the code page of the system.

use super::scenario::Locale;
use encoding_rs::{EUC_KR, SHIFT_JIS};

pub struct Words {
    /// What comes before and after the composition's name when it begins.
    pub starting: (&'static str, &'static str),
    /// The same when it ends.
    pub finished: (&'static str, &'static str),
    pub date: &'static str,
    pub seconds: &'static str,
    pub start: &'static str,
    pub end: &'static str,
    pub duration: &'static str,
    pub frame_rate: &'static str,
    pub comma: &'static str,
    /// In `aerender ERROR: `.
    pub elapsed: &'static str,
}

pub fn words(locale: Locale) -> Words {
    match locale {
        Locale::En => Words {
            starting: ("Starting composition “", "”."),
            finished: ("Finished composition “", "”."),
            date: "4/30/2019 1:59:13 AM",
            seconds: "Seconds",
            start: "Start",
            end: "End",
            duration: "Duration",
            frame_rate: "Frame Rate",
            comma: ".",
            elapsed: "Total Time Elapsed",
        },
        Locale::De => Words {
            starting: ("Komposition \"", "\" gestartet."),
            finished: ("Komposition \"", "\" beendet."),
            date: "19.05.2022 15:23:11",
            seconds: "Sekunden",
            start: "Anfang",
            end: "Ende",
            duration: "Dauer",
            frame_rate: "Framerate für",
            comma: ",",
            elapsed: "Verstrichene Zeit",
        },
        Locale::Fr => Words {
            starting: ("Début de la composition \"", "\"."),
            finished: ("fin de la composition \"", "\"."),
            date: "15/03/2022 19:28:47 GMT+2",
            seconds: "Secondes",
            start: "Début",
            end: "Fin",
            duration: "Durée",
            frame_rate: "Fréquence d'images",
            comma: ",",
            elapsed: "Temps écoulé",
        },
        Locale::Ja => Words {
            starting: ("コンポジション「", "」を開始しました。"),
            finished: ("コンポジション「", "」が終了しました。"),
            date: "2024/1/25 3:01:44",
            seconds: "秒",
            start: "開始",
            end: "終了",
            duration: "長さ",
            frame_rate: "フレームレート",
            comma: ".",
            elapsed: "経過時間",
        },
        Locale::Ko => Words {
            starting: ("컴포지션 \"", "\" 시작됨."),
            finished: ("컴포지션 \"", "\" 완료됨."),
            date: "2024-01-25 3:01:44",
            seconds: "초",
            start: "시작",
            end: "끝",
            duration: "길이",
            frame_rate: "프레임 속도",
            comma: ".",
            elapsed: "경과 시간",
        },
    }
}

/// A line in the bytes of the locale's code page.
pub fn bytes(locale: Locale, line: &str) -> Vec<u8> {
    match locale {
        Locale::En => line.as_bytes().to_vec(),
        Locale::De | Locale::Fr => line.chars().map(code_page_850).collect(),
        Locale::Ja => SHIFT_JIS.encode(line).0.into_owned(),
        Locale::Ko => EUC_KR.encode(line).0.into_owned(),
    }
}

/// The letters used above, in code page 850.
fn code_page_850(letter: char) -> u8 {
    match letter {
        'ä' => 0x84,
        'ö' => 0x94,
        'ü' => 0x81,
        'é' => 0x82,
        'É' => 0x90,
        'è' => 0x8A,
        ascii if ascii.is_ascii() => ascii as u8,
        _ => b'?',
    }
}
