package main

import "github.com/spf13/cobra"

func (c *cli) testnetCommand() *cobra.Command {
	return &cobra.Command{Use: "testnet", Short: "x", RunE: func(*cobra.Command, []string) error { return nil }}
}
