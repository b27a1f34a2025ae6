package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gogf/gf/v2/net/gtcp"
)

const callLimit = 20 * time.Second

// connection is what gtcp.Conn and gtcp.PoolConn have in common.
type connection interface {
	Send(data []byte, retry ...gtcp.Retry) error
	Recv(length int, retry ...gtcp.Retry) ([]byte, error)
	RecvLine(retry ...gtcp.Retry) ([]byte, error)
	RecvTill(till []byte, retry ...gtcp.Retry) ([]byte, error)
	SendRecv(data []byte, length int, retry ...gtcp.Retry) ([]byte, error)
	SendPkg(data []byte, option ...gtcp.PkgOption) error
	RecvPkg(option ...gtcp.PkgOption) ([]byte, error)
	SendRecvPkg(data []byte, option ...gtcp.PkgOption) ([]byte, error)
	SetDeadline(when time.Time) error
	LocalAddr() net.Addr
	Close() error
}

// command is one line of input. Bytes travel as base64, as encoding/json has it.
type command struct {
	Op     string   `json:"op"`
	Addr   string   `json:"addr"`
	Data   []byte   `json:"data"`
	List   [][]byte `json:"list"`
	N      int      `json:"n"`
	Header int      `json:"header"`
	Max    int      `json:"max"`
}

func (c command) option() gtcp.PkgOption {
	return gtcp.PkgOption{HeaderSize: c.Header, MaxDataSize: c.Max}
}

// reply is one line of output.
type reply struct {
	Data  []byte   `json:"data"`
	List  [][]byte `json:"list"`
	Local string   `json:"local"`
	Error string   `json:"error"`
}

// session is the one connection that the commands are about.
type session struct {
	conn connection
}

// call answers every command with exactly one reply, in order, until the input ends.
func call(input io.Reader, output io.Writer) error {
	commands, replies := json.NewDecoder(input), json.NewEncoder(output)
	current := &session{}
	for {
		var next command
		if err := commands.Decode(&next); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := current.do(next)
		if err != nil {
			answer.Error = err.Error()
		}
		if err := replies.Encode(answer); err != nil {
			return err
		}
	}
}

func (s *session) do(c command) (reply, error) {
	switch c.Op {
	case "dial":
		conn, err := gtcp.NewConn(c.Addr)
		if err != nil {
			return reply{}, err
		}
		return s.open(conn)
	case "dial_tls": // the data is the PEM file of the authority to trust
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(c.Data) {
			return reply{}, fmt.Errorf("no certificate in the data")
		}
		conn, err := gtcp.NewConnTLS(c.Addr, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
		if err != nil {
			return reply{}, err
		}
		return s.open(conn)
	case "dial_pool":
		conn, err := gtcp.NewPoolConn(c.Addr)
		if err != nil {
			return reply{}, err
		}
		return s.open(conn)
	}
	if s.conn == nil {
		return reply{}, fmt.Errorf("no connection for %q", c.Op)
	}
	if c.Op == "close" {
		conn := s.conn
		s.conn = nil
		return reply{}, conn.Close()
	}
	if err := s.conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return reply{}, err
	}
	answer, err := exchange(s.conn, c)
	answer.Local = s.conn.LocalAddr().String() // asked for afterwards: a PoolConn may have dialled again
	return answer, err
}

func (s *session) open(conn connection) (reply, error) {
	s.conn = conn
	return reply{Local: conn.LocalAddr().String()}, nil
}

func exchange(conn connection, c command) (answer reply, err error) {
	switch c.Op {
	case "send":
		err = conn.Send(c.Data)
	case "recv":
		answer.Data, err = conn.Recv(c.N)
	case "send_recv":
		answer.Data, err = conn.SendRecv(c.Data, c.N)
	case "recv_line":
		answer.Data, err = conn.RecvLine()
	case "recv_till":
		answer.Data, err = conn.RecvTill(c.Data)
	case "send_pkg":
		err = conn.SendPkg(c.Data, c.option())
	case "recv_pkg":
		answer.Data, err = conn.RecvPkg(c.option())
	case "send_recv_pkg":
		answer.Data, err = conn.SendRecvPkg(c.Data, c.option())
	case "send_pkgs":
		for i := 0; i < len(c.List) && err == nil; i++ {
			err = conn.SendPkg(c.List[i], c.option())
		}
	case "recv_pkgs":
		answer.List, err = collect(c.N, func(int) ([]byte, error) { return conn.RecvPkg(c.option()) })
	case "send_recv_pkgs":
		answer.List, err = collect(len(c.List), func(i int) ([]byte, error) {
			return conn.SendRecvPkg(c.List[i], c.option())
		})
	default:
		err = fmt.Errorf("unknown op %q", c.Op)
	}
	return answer, err
}

// collect keeps what came before an error.
func collect(count int, payload func(i int) ([]byte, error)) (list [][]byte, err error) {
	for i := 0; i < count; i++ {
		one, err := payload(i)
		if err != nil {
			return list, err
		}
		list = append(list, one)
	}
	return list, nil
}
