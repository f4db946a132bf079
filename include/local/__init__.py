"""A local stand-in for HyperPod: for laptops, tests and demos; says what it does not imitate."""
