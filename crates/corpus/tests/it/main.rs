//! A corpus from files to answers: what is taken and what is not, what is found, an index that is damaged, one that is served.

mod building;
mod damage;
mod rig;
mod serving;
