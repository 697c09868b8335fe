//! Every parameter of the simulated farm and its workload as a flag.

use clap::Args;
use flatrender_dispatch::simulate::Parameters;
use std::{fmt, str::FromStr};

/// Numbers with commas between them.
#[derive(Debug, Clone, Copy)]
struct Numbers<const N: usize>([f64; N]);

impl<const N: usize> FromStr for Numbers<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read: Result<Vec<f64>, _> = text.split(',').map(|part| part.trim().parse::<f64>()).collect();
        let fits = read.ok().filter(|numbers| numbers.iter().all(|n| n.is_finite() && *n >= 0.0));
        let numbers = fits.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Self).ok_or(format!("{N} numbers with commas between them, none below 0"))
    }
}

impl<const N: usize> fmt::Display for Numbers<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.map(|n| n.to_string()).join(","))
    }
}

impl From<f64> for Numbers<1> {
    fn from(n: f64) -> Self {
        Self([n])
    }
}
impl From<Numbers<1>> for f64 {
    fn from(Numbers([n]): Numbers<1>) -> Self {
        n
    }
}
impl From<(f64, f64)> for Numbers<2> {
    fn from((a, b): (f64, f64)) -> Self {
        Self([a, b])
    }
}
impl From<Numbers<2>> for (f64, f64) {
    fn from(Numbers([a, b]): Numbers<2>) -> Self {
        (a, b)
    }
}
impl From<(u64, u64)> for Numbers<2> {
    fn from((a, b): (u64, u64)) -> Self {
        Self([a as f64, b as f64])
    }
}
impl From<Numbers<2>> for (u64, u64) {
    fn from(Numbers([a, b]): Numbers<2>) -> Self {
        (a as u64, (b as u64).max(a as u64))
    }
}
impl From<(f64, f64, f64)> for Numbers<3> {
    fn from((a, b, c): (f64, f64, f64)) -> Self {
        Self([a, b, c])
    }
}
impl From<Numbers<3>> for (f64, f64, f64) {
    fn from(Numbers([a, b, c]): Numbers<3>) -> Self {
        (a, b, c)
    }
}

macro_rules! flags {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// The flags; what each means is said at [`Parameters`].
        #[derive(Debug, Clone, Args)]
        #[command(next_help_heading = "The farm and its work (times in seconds; a spread is the sigma of a lognormal)")]
        pub struct WorkloadArgs {
            $($(#[doc = $doc])+
            #[arg(long, value_name = "N", default_value_t = <$type>::from(Parameters::default().$name))]
            $name: $type,)+
            /// Renderers stay up between visits.
            #[arg(long)]
            keep_warm: bool,
        }

        impl WorkloadArgs {
            /// What they say.
            pub fn parameters(&self) -> Parameters {
                Parameters { $($name: self.$name.into(),)+ keep_warm: self.keep_warm }
            }
        }
    };
}

flags! {
    /// Nodes.
    nodes: u32,
    /// Things that a node does at a time.
    slots: u32,
    /// Hours in which work comes.
    hours: Numbers<1>,
    /// Work, with a cold start for each task, over what the nodes can do.
    load: Numbers<1>,
    /// Tenants.
    tenants: usize,
    /// How unequal their sizes are: exponent of Zipf's law.
    tenant_skew: Numbers<1>,
    /// Templates.
    templates: usize,
    /// How unequal their popularity is.
    template_skew: Numbers<1>,
    /// Bytes of a package: median, spread.
    package_bytes: Numbers<2>,
    /// Seconds a frame of a template: median, spread.
    frame_seconds: Numbers<2>,
    /// Spread of a film's seconds a frame around its template's.
    film_spread: Numbers<1>,
    /// Frames of a film: median, spread.
    film_frames: Numbers<2>,
    /// Snapshots of a session: least, most.
    snapshots: Numbers<2>,
    /// Pause before the next snapshot: median, spread.
    think_seconds: Numbers<2>,
    /// Previews of a session: least, most.
    previews: Numbers<2>,
    /// What a preview costs of its film, 0 to 1.
    preview_cost: Numbers<1>,
    /// Probability that a session ends with a film.
    film_probability: Numbers<1>,
    /// Share of the load that comes as campaigns.
    campaign_share: Numbers<1>,
    /// Films of a campaign: shape of Pareto's law, least, most.
    campaign_films: Numbers<3>,
    /// How much the day goes up and down around its mean, 0 to 1.
    day_curve: Numbers<1>,
    /// Bursts: how many an hour, how many times as much comes, seconds.
    bursts: Numbers<3>,
    /// Start of a renderer: median, spread.
    start_seconds: Numbers<2>,
    /// Seconds to open a package.
    open_seconds: Numbers<1>,
    /// How fast a node fetches packages.
    bytes_per_second: Numbers<1>,
    /// Bytes of packages that a node keeps.
    cache_bytes: Numbers<1>,
    /// Probability that a task fails and is done again.
    task_failure: Numbers<1>,
    /// Probability that the renderer crashes in a task.
    crash: Numbers<1>,
    /// Probability that an attempt at a chunk drags on, and how many times as long it takes then.
    slow: Numbers<2>,
    /// Mean seconds between the losses of a node; 0: never.
    node_mtbf: Numbers<1>,
    /// Seconds that a lost node is away.
    node_away: Numbers<1>,
    /// Seconds until its work is given to somebody else.
    lease_seconds: Numbers<1>,
    /// Seconds of work of a chunk.
    chunk_seconds: Numbers<1>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        workload: WorkloadArgs,
    }

    #[test]
    fn no_flags_are_the_defaults_and_each_changes_its_own() {
        let read = |words: &[&str]| Line::try_parse_from(words).map(|line| line.workload.parameters());
        assert_eq!(read(&["x"]).unwrap(), Parameters::default());
        let set = read(&["x", "--nodes", "3", "--snapshots", "1,2", "--bursts", "1,2,3", "--keep-warm"]).unwrap();
        let wanted = Parameters {
            nodes: 3,
            snapshots: (1, 2),
            bursts: (1.0, 2.0, 3.0),
            keep_warm: true,
            ..Parameters::default()
        };
        assert_eq!(set, wanted);
        assert!(read(&["x", "--bursts", "1,2"]).is_err() && read(&["x", "--load", "-1"]).is_err());
    }
}
