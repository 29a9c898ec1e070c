"""The vault: recovery points in a content-addressed store of chunks that many machines and installations share.

What lies in the store:

    vault.json          format, id, chunk size, whether it is encrypted, and a value that tells a wrong key at once
    chunks/ab/abcd…     1 MiB of a disk each, named after its content, compressed and perhaps encrypted
    leaves/ab/abcd…     the names of 1,024 chunks that follow each other on a disk, likewise
    points/UUID         a recovery point: machine, configuration, and per disk the names of its leaves
    runs/UUID           a copy or collection that has begun and not ended
    marks/UUID          a collection's mark: which runs its trash waits for, once that is known
    trash/UUID/…        what the collection of that mark moved away
    broken/NAME         a chunk or leaf that was found damaged and is to be stored anew

Nothing but a point refers to leaves, nothing but leaves to chunks. All-zero chunks and leaves are not stored.

Copies, deletions and collections of several processes and installations go on beside each other, and any of them may
die at any moment. What keeps every point whole is the order of steps:

A copy
  a. registers under `runs/` before it looks for the first chunk: from then on a collection knows of it;
  b. looks for each chunk in its place only. A chunk in the trash counts as missing and is stored anew, since the
     collection that put it there may not wait for a copy that began later;
  c. checks before its end that every chunk and leaf of the new point is in its place, and takes back from the trash
     what is not: it may have been moved since it was looked for, or inherited from a base point that somebody deleted.
     What it inherits it does not look at if no collection has trash and the base is still a point, in this order:
     every collection that did not note this copy has ended then, and moved back what the base refers to;
  d. only then writes the point, in one piece: half a copy is never a point;
  e. only then is unregistered: at any moment its chunks are protected by the run or by the point.

A collection
  1. lists all chunks, then all points, and finds the chunks that no point refers to. In this order: what a copy stores
     and commits in between would otherwise be moved for nothing;
  2. moves those to its trash;
  3. only then notes which copies are open. Every copy that may have seen one of these chunks in its place is now
     either noted or has ended; were they noted before the moves, one that began in between would be neither;
  4. lists the points again and moves back what points refer to that were committed by copies which had ended before
     3: nobody else would, later copies would count these chunks as missing, and a copy that inherits one of them
     from its base would have to fail in c if the base is deleted and the trash emptied meanwhile;
  5. deletes the trash once every noted copy has ended, however long that takes: one that is open may have looked for a
     chunk and be about to write its point. Then, and not before, it lists the points once more and moves back what
     they refer to: a copy may have passed its check before the move and have written its point after 4.

No step asks a clock. A run whose process died keeps what it may have seen until its owner says that it has ended
(`end_run`); the same holds for a collection, whose mark is taken over by the next one then. In the time between a move
and the moving back a point's chunk lies in the trash, so readers look there too.
"""
