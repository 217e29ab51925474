"""Where models are born: simulators label, pipelines fit, exporters write, the gate certifies."""
