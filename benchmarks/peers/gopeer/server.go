package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gogf/gf/v2/net/gtcp"
)

// serve echoes packages until stdin ends.
func serve() {
	server := gtcp.NewServer("127.0.0.1:0", echo)
	go func() { check(server.Run()) }()
	for server.GetListenedPort() <= 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(server.GetListenedPort())
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func echo(conn *gtcp.Conn) {
	defer conn.Close()
	for {
		data, err := conn.RecvPkg()
		if err != nil {
			return
		}
		if conn.SendPkg(data) != nil {
			return
		}
	}
}
