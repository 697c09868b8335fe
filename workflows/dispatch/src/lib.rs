//! Who renders what next.
//!
//! ```text
//!   ready tasks ──▶ Farm: what waits, by tenant, package and need      Policy
//!   nodes ────────▶       what runs, what each tenant has had             │
//!                           └── assign(idle nodes) ──▶ who takes what ◀───┘
//! ```
//! A [`Farm`] holds what there is to do and what is being done, in memory; [`Farm::assign`] says which of the nodes that are idle
//! take which of it, and [`Farm::why_waiting`] says of an item why nobody has it. Time comes in as seconds, from whoever has the
//! clock. The server of the API and the simulator run the same code: one with the tasks of PostgreSQL, which alone leases, the
//! other with invented ones.
//!
//! What the decision keeps to, whatever the [`Policy`]:
//! - An item never goes to a node that lacks one of its labels, that it is to avoid, or that may not work.
//! - No idle node is left without work that it may do, but for the slots that are kept for snapshots.
//!
//! With [`Policy::production`], too:
//! - **Snapshots before previews before films**, and some slots of each pool are kept for snapshots alone. Previews and films in turn
//!   each have a share of the slots before what is more urgent ([`Policy::floors`]), and where that share is no whole slot, one item
//!   after [`Policy::floor_patience`] seconds without any: none starves another. Work is never taken away from a node: what bounds
//!   the wait of a snapshot is that chunks are short.
//! - **Tenants take turns** by what they have had, in slot-seconds over weight. Who was away has saved nothing up. A tenant can be
//!   passed over for one whose package a node holds by at most [`Policy::slack`] slot-seconds.
//! - **What is late is done twice**: of a chunk that takes [`Policy::late_factor`] times what it should, a second node may make another,
//!   once, and only one that has nothing else to do ([`Farm::late`], [`Class::Spare`]). Who does them takes the first that is whole.
//! - **Within a tenant** the oldest goes first; a step of priority counts as [`Policy::priority_step`] seconds of waiting. So
//!   nothing that comes later than `(highest priority - own) * priority_step + warm_window` after an item goes before it: the items
//!   that can are finite in number when it arrives, and it is served after them.

mod farm;
mod policy;
pub mod simulate;
mod tier;
mod why;
mod work;

pub use farm::{Assignment, Farm, Running};
pub use policy::{Order, Policy};
pub use why::Why;
pub use work::{Class, Item, Labels, Node, Package};
