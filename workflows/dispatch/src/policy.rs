//! What may be decided one way or another.

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Whoever came first, whatever it is.
    Fifo,
    /// The most urgent class, then priority, then whoever came first.
    Priority,
    /// Snapshots, then previews, then films; among each the tenant that has had the least.
    Fair,
}

/// How a [`crate::Farm`] decides. Times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Who goes first.
    pub order: Order,
    /// Whether it counts what a node would have to fetch and to start.
    pub affinity: bool,
    /// Share of the slots of a pool that only snapshots get while interactive work has come of late; to the nearest whole slot.
    pub reserve: f64,
    /// The reserve is lent out when no interactive work has come for so long.
    pub reserve_for: f64,
    /// Shares of the slots of a pool that snapshots, previews and films have before what is more urgent; whole slots only.
    pub floors: [f64; 3],
    /// Where a floor is less than a slot, one item of its kind goes first after so long without any.
    pub floor_patience: f64,
    /// Slot-seconds by which a tenant may be passed over for one whose package is at hand.
    pub slack: f64,
    /// How much younger an item may be that goes before another of its tenant, because its package is at hand.
    pub warm_window: f64,
    /// What a step of priority counts, in seconds of waiting.
    pub priority_step: f64,
    /// A chunk is late when it has taken so many times what it should, beside fetching and starting; infinite: never.
    pub late_factor: f64,
    /// And at least so long.
    pub late_seconds: f64,
    /// And at least so long where nobody knows how long it takes.
    pub late_unknown_seconds: f64,
    /// Most stills of one package in one visit.
    pub batch: usize,
    /// How long a renderer takes to start.
    pub start_seconds: f64,
    /// How long a renderer takes to open a package.
    pub open_seconds: f64,
    /// The label whose values make pools: work of one is never done by nodes of another.
    pub pool_label: String,
}

impl Policy {
    /// As they came.
    pub fn fifo() -> Self {
        let late_factor = f64::INFINITY;
        Self { order: Order::Fifo, affinity: false, reserve: 0.0, late_factor, batch: 1, ..Self::production() }
    }

    /// The most urgent first.
    pub fn priority() -> Self {
        Self { order: Order::Priority, ..Self::fifo() }
    }

    /// Tenants take turns.
    pub fn fair() -> Self {
        Self { order: Order::Fair, ..Self::fifo() }
    }

    /// Tenants take turns, and what is at hand counts.
    pub fn fair_with_affinity() -> Self {
        Self { affinity: true, ..Self::fair() }
    }

    /// The same, with slots that are kept for interactive work.
    pub fn with_reserve() -> Self {
        Self { reserve: Self::production().reserve, ..Self::fair_with_affinity() }
    }

    /// What the server uses: all of it, several stills in one visit, and what is late is done a second time.
    pub fn production() -> Self {
        Self {
            order: Order::Fair,
            affinity: true,
            reserve: 0.125,
            reserve_for: 600.0,
            floors: [0.0, 0.125, 0.125],
            floor_patience: 120.0,
            slack: 60.0,
            warm_window: 60.0,
            priority_step: 60.0,
            late_factor: 3.0,
            late_seconds: 30.0,
            late_unknown_seconds: 600.0,
            batch: 8,
            start_seconds: 15.0,
            open_seconds: 3.0,
            pool_label: "engine".into(),
        }
    }
}
