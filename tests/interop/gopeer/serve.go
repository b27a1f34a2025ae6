package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gogf/gf/v2/net/gtcp"
)

const listenLimit = 10 * time.Second

// behaviour is what a server does with one connection, which is closed afterwards.
type behaviour func(conn *gtcp.Conn) error

// serve listens on a free port of 127.0.0.1 and runs until standard input ends, so that it never outlives its test.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	mode := flags.String("mode", "echo", "echo, exact, line, till, package, once or flood")
	count := flags.Int("n", 0, "exact: bytes per exchange; flood: packages to send")
	till := flags.String("till", "", "till: the delimiter")
	header := flags.Int("header", 0, "package, flood: bytes of the header, 0 for the default")
	limit := flags.Int("max", 0, "package, flood: largest payload, 0 for the default")
	crt := flags.String("crt", "", "certificate file: the server speaks TLS")
	key := flags.String("key", "", "its key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	option := gtcp.PkgOption{HeaderSize: *header, MaxDataSize: *limit}

	behaviours := map[string]behaviour{
		"echo":    forever(echoPrefixed),
		"once":    echoPrefixed,
		"exact":   forever(func(conn *gtcp.Conn) error { return echoExact(conn, *count) }),
		"line":    forever(echoLine),
		"till":    forever(func(conn *gtcp.Conn) error { return echoTill(conn, []byte(*till)) }),
		"package": forever(func(conn *gtcp.Conn) error { return echoPackage(conn, option) }),
		"flood":   func(conn *gtcp.Conn) error { return flood(conn, *count, option) },
	}
	behave, known := behaviours[*mode]
	if !known {
		return fmt.Errorf("unknown mode %q", *mode)
	}

	server := gtcp.NewServer("127.0.0.1"+gtcp.FreePortAddress, func(conn *gtcp.Conn) {
		defer conn.Close() // unlike ours, this server leaves the connection open when its handler returns
		if err := behave(conn); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, "gopeer:", err)
		}
	})
	if *crt != "" {
		if err := server.SetTLSKeyCrt(*crt, *key); err != nil {
			return err
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run() }()
	port, err := listeningPort(server, stopped)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]int{"port": port}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return server.Close()
}

// listeningPort asks for the port until there is one: the server tells nobody when it begins to listen.
func listeningPort(server *gtcp.Server, stopped <-chan error) (int, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(listenLimit)
	for {
		select {
		case err := <-stopped:
			return 0, err
		case <-limit:
			return 0, fmt.Errorf("not listening after %s", listenLimit)
		case <-tick.C:
			if port := server.GetListenedPort(); port > 0 {
				return port, nil
			}
		}
	}
}

func forever(exchange behaviour) behaviour {
	return func(conn *gtcp.Conn) error {
		for {
			if err := exchange(conn); err != nil {
				return err
			}
		}
	}
}

func echoPrefixed(conn *gtcp.Conn) error {
	data, err := conn.Recv(-1)
	if err != nil {
		return err
	}
	return conn.Send(append([]byte("> "), data...))
}

func echoExact(conn *gtcp.Conn, n int) error {
	data, err := conn.Recv(n)
	if err != nil {
		return err
	}
	return conn.Send(data)
}

func echoLine(conn *gtcp.Conn) error {
	line, err := conn.RecvLine()
	if err != nil {
		return err
	}
	return conn.Send(append(line, '\n'))
}

func echoTill(conn *gtcp.Conn, till []byte) error {
	data, err := conn.RecvTill(till)
	if err != nil {
		return err
	}
	return conn.Send(data)
}

func echoPackage(conn *gtcp.Conn, option gtcp.PkgOption) error {
	data, err := conn.RecvPkg(option)
	if err != nil {
		return err
	}
	return conn.SendPkg(data, option)
}

// flood sends package i as "i:" and i%256 letters, all without waiting for anybody.
func flood(conn *gtcp.Conn, count int, option gtcp.PkgOption) error {
	for i := 0; i < count; i++ {
		payload := fmt.Appendf(nil, "%d:%s", i, bytes.Repeat([]byte{'x'}, i%256))
		if err := conn.SendPkg(payload, option); err != nil {
			return err
		}
	}
	return nil
}
