//! The answer of `flatrender simulate`: a row for each thing that is measured, a column for each policy.

use flatrender_dispatch::simulate::{Estimate, Metric, Outcome, Parameters, Variant};
use serde_json::{Value, json};

/// Estimates by policy.
#[derive(Debug)]
pub struct Table {
    names: Vec<&'static str>,
    rows: Vec<(Metric, Vec<Estimate>)>,
    /// How many times shorter the p95 of the wait for a snapshot is than under the first policy: mean, least, most.
    shorter: Vec<[f64; 3]>,
    seeds: usize,
}

impl Table {
    /// Of the outcomes of each policy.
    pub fn new(variants: &[Variant], outcomes: &[Vec<Outcome>]) -> Self {
        let of = |outcomes: &[Outcome], metric| outcomes.iter().map(|o| o.values[&metric]).collect::<Vec<f64>>();
        let estimates = |metric| outcomes.iter().map(|each| Estimate::of(&of(each, metric))).collect();
        let p95: Vec<Vec<f64>> = outcomes.iter().map(|each| of(each, Metric::SnapshotP95)).collect();
        // Seed by seed: the work is the same, so most of the chance cancels. Ratios are multiplied, so their logarithms are added.
        let shorter = p95.iter().map(|each| {
            let ratios: Vec<f64> =
                p95[0].iter().zip(each).map(|(first, own)| (first.max(0.1) / own.max(0.1)).ln()).collect();
            let Estimate { mean, within } = Estimate::of(&ratios);
            [mean, mean - within, mean + within].map(f64::exp)
        });
        Self {
            names: variants.iter().map(|variant| variant.name).collect(),
            rows: Metric::ALL.map(|metric| (metric, estimates(metric))).into(),
            shorter: shorter.collect(),
            seeds: outcomes.first().map_or(0, Vec::len),
        }
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let head = std::iter::once(String::new()).chain(self.names.iter().map(|name| (*name).to_owned()));
        let mut lines = vec![head.collect()];
        for (metric, estimates) in &self.rows {
            let cells = estimates.iter().map(|e| cell(*e));
            lines.push(std::iter::once(metric.name().to_owned()).chain(cells).collect());
        }
        let times = self.shorter.iter().map(|[mean, least, most]| format!("{mean:.1} ({least:.1}–{most:.1})"));
        lines.push(std::iter::once("snapshot p95, times shorter".to_owned()).chain(times).collect());
        lines
    }

    /// For terminals.
    pub fn plain(&self) -> String {
        let lines = self.lines();
        let widths: Vec<usize> = (0..=self.names.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = format!("{}\n\n", self.note());
        for line in lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(n, (cell, width))| match n {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// For Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = self.lines().into_iter().map(|line| format!("| {} |\n", line.join(" | ")));
        let head = lines.next().unwrap_or_default();
        let rule = format!("|---|{}\n", "---:|".repeat(self.names.len()));
        format!("{}\n\n{head}{rule}{}", self.note(), lines.collect::<String>())
    }

    /// For programs.
    pub fn json(&self, parameters: &Parameters) -> Value {
        let policies = self.names.iter().enumerate().map(|(n, name)| {
            let of = |(metric, estimates): &(Metric, Vec<Estimate>)| {
                let Estimate { mean, within } = estimates[n];
                (metric.name().to_owned(), json!({ "mean": mean, "within": within }))
            };
            let measured: serde_json::Map<String, Value> = self.rows.iter().map(of).collect();
            json!({ "policy": name, "measured": measured, "snapshot_p95_times_shorter": self.shorter[n] })
        });
        let parameters = format!("{parameters:?}");
        json!({ "seeds": self.seeds, "parameters": parameters, "policies": policies.collect::<Vec<_>>() })
    }

    fn note(&self) -> String {
        format!(
            "Means over {} seeds ± half of the 95 % confidence interval; invented work, no After Effects.",
            self.seeds
        )
    }
}

fn cell(Estimate { mean, within }: Estimate) -> String {
    let digits = match mean.abs() {
        _ if mean.is_nan() => return "–".to_owned(),
        m if m >= 100.0 => 0,
        m if m >= 3.0 => 1,
        _ => 2,
    };
    match within.is_nan() {
        true => format!("{mean:.digits$}"),
        false => format!("{mean:.digits$} ± {within:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_dispatch::simulate;

    #[test]
    fn the_table_says_how_policies_compare() {
        let parameters = Parameters { hours: 1.0, nodes: 4, ..Parameters::default() };
        let variants = simulate::variants(&parameters);
        let of = |variant: &Variant| {
            (0..3).map(|seed| simulate::run(&parameters, &simulate::invent(&parameters, seed), variant, seed)).collect()
        };
        let outcomes: Vec<Vec<Outcome>> = variants.iter().map(of).collect();
        let table = Table::new(&variants, &outcomes);
        let markdown = table.markdown();
        assert_eq!(markdown.lines().count(), 2 + 2 + Metric::ALL.len() + 1);
        assert!(markdown.lines().skip(2).all(|line| line.matches('|').count() == 9), "{markdown}");
        let last = table.plain().lines().last().unwrap().to_owned();
        assert!(last.starts_with("snapshot p95, times shorter  1.0 (1.0–1.0)"), "{last}");
        assert_eq!(table.json(&parameters)["policies"][6]["policy"], "production");
    }
}
