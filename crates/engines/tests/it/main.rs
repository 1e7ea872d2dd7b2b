//! Engines at servers, held against small servers of the tests' own that speak vLLM's and SGLang's protocols: well, and not.

mod fake;
mod pool;
mod start;
mod turns;
mod weights;
