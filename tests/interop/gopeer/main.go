// Command gopeer puts GoFrame's gtcp on the other end of the wire.
//
//	gopeer serve -mode line    prints {"port": N} when it listens, serves until its input ends
//	gopeer call                runs one JSON command per line of input, prints one JSON reply for each
//
// It decides nothing: the tests say what to do and judge what came out.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gopeer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say serve or call")
	}
	switch args[0] {
	case "serve":
		return serve(args[1:])
	case "call":
		return call(os.Stdin, os.Stdout)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
