//! The planner against a model server that takes ops one by one.
