"""Methods that train a weight-sharing supernet by sampling, and modifiers of their steps."""
