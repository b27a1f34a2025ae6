// Command gopeer is the original: GoFrame's gtcp module as client and as server.
//
//	gopeer server                       echoes packages; prints its port
//	gopeer client PORT WORK SIZE [ARG]  works by rounds, as described in ../wire.h
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "server":
		serve()
	case len(os.Args) >= 5 && os.Args[1] == "client":
		argument := 0
		if len(os.Args) > 5 {
			argument = number(os.Args[5])
		}
		rounds(newWork(os.Args[3], "127.0.0.1:"+os.Args[2], number(os.Args[4]), argument))
	default:
		fmt.Fprintln(os.Stderr, "usage: gopeer server | gopeer client PORT WORK SIZE [ARG]")
		os.Exit(2)
	}
}

// rounds answers each count on stdin with the wall and CPU time of that many units of work.
func rounds(work func(n int)) {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		n := number(lines.Text())
		cpu, start := cpuTime(), time.Now()
		work(n)
		wall := time.Since(start)
		fmt.Println(wall.Nanoseconds(), cpuTime()-cpu)
	}
}

func cpuTime() int64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gopeer:", err)
		os.Exit(1)
	}
}
