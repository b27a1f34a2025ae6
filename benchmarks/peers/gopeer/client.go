package main

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gogf/gf/v2/net/gtcp"
)

const timeout = 5 * time.Second

// newWork returns a function that does n units of the named work over connections it has already opened.
func newWork(name, address string, size, argument int) func(n int) {
	data := make([]byte, size)
	switch name {
	case "exchange":
		return exchange(dial(address), data, gtcp.PkgOption{HeaderSize: argument})
	case "timed":
		return exchangeWithTimeout(dial(address), data, gtcp.PkgOption{HeaderSize: argument})
	case "tls":
		return exchange(dialTLS(address), data, gtcp.PkgOption{HeaderSize: argument})
	case "pool":
		return pooledExchange(address, data)
	case "acquire":
		return acquire(address)
	case "raw":
		return raw(dial(address), data)
	case "rawn":
		return rawExact(dial(address), data)
	case "flood":
		return flood(dial(address))
	case "lines":
		return lines(dial(address))
	case "sendflood":
		return sendFlood(dial(address), data)
	case "threads":
		return parallel(address, data, argument)
	}
	fmt.Fprintln(os.Stderr, "gopeer: no work named", name)
	os.Exit(2)
	return nil
}

func dial(address string) *gtcp.Conn {
	conn, err := gtcp.NewConn(address, timeout)
	check(err)
	return conn
}

func dialTLS(address string) *gtcp.Conn {
	conn, err := gtcp.NewConnTLS(address, &tls.Config{InsecureSkipVerify: true})
	check(err)
	return conn
}

func exchange(conn *gtcp.Conn, data []byte, option gtcp.PkgOption) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			_, err := conn.SendRecvPkg(data, option)
			check(err)
		}
	}
}

func exchangeWithTimeout(conn *gtcp.Conn, data []byte, option gtcp.PkgOption) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			_, err := conn.SendRecvPkgWithTimeout(data, timeout, option)
			check(err)
		}
	}
}

func pooledExchange(address string, data []byte) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			conn, err := gtcp.NewPoolConn(address, timeout)
			check(err)
			_, err = conn.SendRecvPkg(data)
			check(err)
			check(conn.Close())
		}
	}
}

// acquire sends nothing in between: the original gives back only connections that have sent or received something,
// and dials anew for each lease otherwise.
func acquire(address string) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			conn, err := gtcp.NewPoolConn(address, timeout)
			check(err)
			check(conn.Send(nil))
			check(conn.Close())
		}
	}
}

// raw is the original's SendRecv(data, -1): it waits a millisecond to see whether more is coming.
func raw(conn *gtcp.Conn, data []byte) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			reply, err := conn.SendRecv(data, -1)
			check(err)
			for have := len(reply); have < len(data); have += len(reply) {
				reply, err = conn.Recv(-1)
				check(err)
			}
		}
	}
}

// rawExact is its way around that wait, for those who know the length.
func rawExact(conn *gtcp.Conn, data []byte) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			_, err := conn.SendRecv(data, len(data))
			check(err)
		}
	}
}

func ask(conn *gtcp.Conn, count int) {
	check(conn.Send(binary.BigEndian.AppendUint64(nil, uint64(count))))
}

func flood(conn *gtcp.Conn) func(n int) {
	return func(n int) {
		ask(conn, n)
		for i := 0; i < n; i++ {
			_, err := conn.RecvPkg()
			check(err)
		}
	}
}

func lines(conn *gtcp.Conn) func(n int) {
	return func(n int) {
		ask(conn, n)
		for i := 0; i < n; i++ {
			_, err := conn.RecvLine()
			check(err)
		}
	}
}

func sendFlood(conn *gtcp.Conn, data []byte) func(n int) {
	return func(n int) {
		ask(conn, n*(len(data)+2))
		for i := 0; i < n; i++ {
			check(conn.SendPkg(data))
		}
		_, err := conn.Recv(1)
		check(err)
	}
}

func parallel(address string, data []byte, count int) func(n int) {
	conns := make([]*gtcp.Conn, count)
	for i := range conns {
		conns[i] = dial(address)
	}
	return func(n int) {
		var group sync.WaitGroup
		for _, conn := range conns {
			group.Add(1)
			go func() {
				defer group.Done()
				exchange(conn, data, gtcp.PkgOption{})(n / count)
			}()
		}
		group.Wait()
	}
}
