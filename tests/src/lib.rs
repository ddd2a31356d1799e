//! Helpers of the tests that start processes.
