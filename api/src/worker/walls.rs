//! Whether what strangers send is read behind walls on this machine: told once a process, and shown for as long as it runs.

use flatrender_activities::media::jail::Walls;
use std::error::Error;
use tokio::sync::OnceCell;

/// Tells of each `wall`, `network` and `files`, whether it stands (1) or not (0).
pub const WALLS: &str = "flatrender_media_walls";

static TRIED: OnceCell<Walls> = OnceCell::const_new();

/// Tries the walls of this machine once, and warns where they do not stand; gives what was found.
pub async fn tried() -> Walls {
    *TRIED.get_or_init(look).await
}

async fn look() -> Walls {
    let walls = Walls::tried().await.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn Error, "cannot try the jail of programs that read what others send");
        Walls { network: false, files: false }
    });
    if !walls.stand() {
        let (network, files) = (walls.network, walls.files);
        tracing::warn!(network, files, "programs that read what others send are not walled in: see flatrender doctor");
    }
    walls
}

/// Shows what stands.
pub fn show(walls: Walls) {
    for (wall, stands) in [("network", walls.network), ("files", walls.files)] {
        metrics::gauge!(WALLS, "wall" => wall).set(f64::from(u8::from(stands)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn what_stands_is_shown_wall_by_wall() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || show(Walls { network: true, files: false }));
        let text = handle.render();
        for line in ["flatrender_media_walls{wall=\"network\"} 1", "flatrender_media_walls{wall=\"files\"} 0"] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }
}
