// Sends one message to every row of a CSV file the way a Go program would: goroutines over net/smtp, one connection
// each, quoted-printable by mime/quotedprintable.  No list checks, no journal, no report, no retry.
//
// go run go_loop.go LIST.csv TEXT HTML PORT CONNECTIONS
// The list is email,name,town without quotes.  Prints {"accepted": …, "failed": …}.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/smtp"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func part(writer *multipart.Writer, kind, body string) {
	head := textproto.MIMEHeader{}
	head.Set("Content-Type", kind+"; charset=utf-8")
	head.Set("Content-Transfer-Encoding", "quoted-printable")
	target, _ := writer.CreatePart(head)
	encoder := quotedprintable.NewWriter(target)
	encoder.Write([]byte(body))
	encoder.Close()
}

func compose(row int, email, name, town, text, html string) []byte {
	var message bytes.Buffer
	writer := multipart.NewWriter(&message)
	fmt.Fprintf(&message, "From: Shop <shop@example.org>\r\nTo: %s <%s>\r\n", mime.QEncoding.Encode("utf-8", name), email)
	fmt.Fprintf(&message, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", "Hello "+name))
	fmt.Fprintf(&message, "Date: %s\r\nMessage-ID: <%d@example.org>\r\n", time.Now().Format(time.RFC1123Z), row)
	fmt.Fprintf(&message, "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=%s\r\n\r\n", writer.Boundary())
	fill := strings.NewReplacer("{{ name }}", name, "{{ town }}", town)
	part(writer, "text/plain", fill.Replace(text))
	part(writer, "text/html", fill.Replace(html))
	writer.Close()
	return message.Bytes()
}

func send(client *smtp.Client, email string, content []byte) error {
	if err := client.Mail("shop@example.org"); err != nil {
		return err
	}
	if err := client.Rcpt(email); err != nil {
		return err
	}
	target, err := client.Data()
	if err != nil {
		return err
	}
	if _, err = target.Write(content); err != nil {
		return err
	}
	return target.Close()
}

func main() {
	list, _ := os.Open(os.Args[1])
	text, _ := os.ReadFile(os.Args[2])
	html, _ := os.ReadFile(os.Args[3])
	connections, _ := strconv.Atoi(os.Args[5])
	type job struct {
		row    int
		fields []string
	}
	jobs := make(chan job, 2*connections)
	var accepted, failed atomic.Int64
	var workers sync.WaitGroup
	for n := 0; n < connections; n++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			client, err := smtp.Dial("127.0.0.1:" + os.Args[4])
			if err != nil {
				panic(err)
			}
			defer client.Quit()
			for next := range jobs {
				email, name, town := next.fields[0], next.fields[1], next.fields[2]
				if err := send(client, email, compose(next.row, email, name, town, string(text), string(html))); err != nil {
					failed.Add(1)
					client.Reset()
				} else {
					accepted.Add(1)
				}
			}
		}()
	}
	rows := bufio.NewScanner(list)
	rows.Scan()
	for row := 1; rows.Scan(); row++ {
		jobs <- job{row, strings.Split(rows.Text(), ",")}
	}
	close(jobs)
	workers.Wait()
	fmt.Printf("{\"accepted\": %d, \"failed\": %d}\n", accepted.Load(), failed.Load())
}
