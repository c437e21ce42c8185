"""ExpInstruct-Mini: experiment families written as YAML, rendered into videos whose truth is known."""
