"""Generated from proto/ by generate.sh. Never edited by hand."""
