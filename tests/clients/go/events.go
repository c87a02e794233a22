package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var printing sync.Mutex

// tell prints an event: pairs of a name and a value.
func tell(event string, pairs ...any) {
	object := map[string]any{"event": event}
	for n := 0; n < len(pairs); n += 2 {
		object[pairs[n].(string)] = pairs[n+1]
	}
	line, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	printing.Lock()
	defer printing.Unlock()
	fmt.Fprintf(os.Stdout, "%s\n", line)
}

func fail(what string, err error) {
	tell("error", "what", what, "text", err.Error())
}

func tellSVID(by string, svid *x509svid.SVID, roots int) {
	serial := svid.Certificates[0].SerialNumber
	tell("x509", "by", by, "id", svid.ID.String(), "serial", serial.Text(16), "roots", roots)
}
