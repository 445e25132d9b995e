package fs

import "git.eeqj.de/sneak/vaultik/metastore"

// View is what the tree is made from. Closing the tree closes it.
func (t *Tree) View() *metastore.View { return t.view }
