package udpbatch

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestReadWholeBatches has super-datagrams of uneven lengths wait: a Read returns as
// many as leave in full ones again, with what it kept back before and with what one
// call more brings; every datagram once, and in order.
func TestReadWholeBatches(t *testing.T) {
	const size = 1382
	type step struct {
		send []int // datagrams of the super-datagrams that come
		want []int // datagrams by Read after that
	}
	for _, tt := range []struct {
		slots int
		exact bool // else only the order counts
		steps []step
	}{
		// Calls bring two of them: 51, 51 of which 12 are kept, 51, and so on.
		{16, true, []step{{[]int{47, 4, 47, 4, 47, 4, 20, 47, 47, 1, 30}, []int{90, 12 + 51, 90, 25 + 30}}}},
		// What is kept waits for nobody, but takes what has come since.
		{16, true, []step{{[]int{47, 4, 47}, []int{90}}, {[]int{47, 47}, []int{90, 12}}, {[]int{3}, []int{3}}}},
		{4, false, []step{{[]int{47, 4, 47, 4, 47, 4, 20, 47, 47, 1, 30}, nil}}},
		{2, false, []step{{[]int{47, 4, 47, 4, 47, 4, 20, 47, 47, 1, 30}, nil}}},
	} {
		for _, ip := range loopbacks {
			t.Run(fmt.Sprintf("%v, %d slots, %d steps", ip, tt.slots, len(tt.steps)), func(t *testing.T) {
				in, out := listen(t, Config{Slots: tt.slots}, ip), listen(t, Config{}, ip)
				defer time.AfterFunc(time.Minute, func() { in.Close() }).Stop()
				exact := tt.exact && out.gso.segments.Load() > 0 // else they come one by one
				dst := make([]Datagram, 128)
				var number, next uint32
				for _, step := range tt.steps {
					for _, n := range step.send {
						var msgs []Message
						for range n {
							b := make([]byte, size)
							binary.BigEndian.PutUint32(b, number)
							number++
							msgs = append(msgs, Message{To: in.LocalAddr(), Payload: b})
						}
						if sent := out.Write(msgs); sent != n {
							t.Fatalf("%d of %d sent", sent, n)
						}
					}
					var got []int
					for exact && len(got) < len(step.want) || !exact && next < number {
						n, err := in.Read(dst)
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, n)
						for _, d := range dst[:n] {
							if x := binary.BigEndian.Uint32(d.Data); len(d.Data) != size || x != next {
								t.Fatalf("%d bytes, number %d, want %d", len(d.Data), x, next)
							}
							next++
						}
					}
					if exact && !slices.Equal(got, step.want) {
						t.Errorf("read %v, want %v", got, step.want)
					}
				}
				if next != number {
					t.Errorf("%d of %d datagrams", next, number)
				}
			})
		}
	}
}
