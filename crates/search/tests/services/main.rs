//! Back ends against servers that speak their documented shapes, well and badly; and what is around them: keys, cache, budget, rate.

mod badly;
mod fastmcp;
mod kept;
mod mcp;
mod mcp_served;
mod pages;
mod published;
mod served;
mod server;
mod shapes;
