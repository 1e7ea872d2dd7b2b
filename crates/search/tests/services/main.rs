//! Back ends against servers that speak their documented shapes, well and badly; and what is around them: keys, cache, budget, rate.

mod badly;
mod kept;
mod served;
mod server;
mod shapes;
