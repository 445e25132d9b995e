package dir

import "os"

// PublishByLink makes s behave as on a file system without RENAME_NOREPLACE.
func (s *Store) PublishByLink() { s.publish = publishByLink }

// PublishWith lets a test stand in for the file system.
func (s *Store) PublishWith(f func(folder *os.File, from, to string) error) { s.publish = f }
