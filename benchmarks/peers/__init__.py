"""What the library is compared with: the Go package, and other Python libraries."""
