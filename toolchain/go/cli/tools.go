//go:build tools

// Package cli pins the Pulumi CLI: the import below keeps its modules in go.mod and go.sum.
package cli

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
