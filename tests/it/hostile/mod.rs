//! A member of the mesh against the others: what it takes up is its own share, and it
//! can be seen and removed while it does.

mod all_at_once;
mod inbox;
mod neighbour;
mod shares;
