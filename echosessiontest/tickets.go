package echosessiontest

import (
	"context"
	"time"

	"github.com/echosession/echosession"
)

var _ echosession.TicketStore = (*FaultStore)(nil)

// PutTicket implements [echosession.TicketStore]. Where the other store keeps no tickets,
// it returns [echosession.ErrUnsupported].
func (s *FaultStore) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.fault(); err != nil {
		return err
	}
	tickets, ok := s.store.(echosession.TicketStore)
	if !ok {
		return echosession.ErrUnsupported
	}
	return tickets.PutTicket(ctx, key, value, ttl)
}

// TakeTicket implements [echosession.TicketStore], as PutTicket does.
func (s *FaultStore) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	tickets, ok := s.store.(echosession.TicketStore)
	if !ok {
		return nil, echosession.ErrUnsupported
	}
	return tickets.TakeTicket(ctx, key)
}
