// What an edge has charged for shared jobs, on the disk of the host that promised them.
#include "worker/queue/shared_jobs/receipt_journal.h"

#include <gtest/gtest.h>

#include "tests/unit/queue/store/store_fixture.h"

namespace penstock::queue {
namespace {

class ReceiptJournalTest : public StoreFixture {
 protected:
  ReceiptJournalTest() {
    reopen();
    journal_.emplace(store_.get());
  }

  JobId next() { return ids_.make(kNowMs); }
  // What is kept, once the store has written all; and the next life of both.
  std::string kept() {
    journal_.reset();
    std::string text = execute("SELECT group_concat(CAST(job AS TEXT), ' ') FROM away");
    reopen();
    journal_.emplace(store_.get());
    return text;
  }

  std::optional<ReceiptJournal> journal_;
};

TEST_F(ReceiptJournalTest, WhatIsNotedIsOnDiskUntilItIsForgotten) {
  const JobId first = next();
  journal_->note(first, "one");
  journal_->note(next(), "two");
  EXPECT_TRUE(journal_->forget(sequence_of(first)));
  EXPECT_FALSE(journal_->forget(sequence_of(first)));
  EXPECT_EQ(kept(), "two");
}

TEST_F(ReceiptJournalTest, WhatWasNotedInAnEarlierLifeIsForgottenInTheNext) {
  const JobId id = next();
  journal_->note(id, "one");
  EXPECT_EQ(kept(), "one");
  EXPECT_FALSE(journal_->forget(sequence_of(id)));
  journal_->restore(id);
  EXPECT_TRUE(journal_->forget(sequence_of(id)));
  EXPECT_EQ(kept(), "");
}

TEST_F(ReceiptJournalTest, WithoutAStoreWhatIsNotedIsKnownInMemory) {
  ReceiptJournal journal(nullptr);
  const JobId id = next();
  journal.note(id, "one");
  EXPECT_TRUE(journal.contains(sequence_of(id)));
  EXPECT_TRUE(journal.forget(sequence_of(id)));
  EXPECT_FALSE(journal.contains(sequence_of(id)));
}

TEST_F(ReceiptJournalTest, BeyondItsBoundTheOldestGo) {
  const JobId oldest = next();
  journal_->restore(oldest);
  for (size_t i = 1; i < ReceiptJournal::kMost; ++i) {
    journal_->restore(next());
  }
  journal_->note(next(), "one");
  EXPECT_EQ(journal_->size(), ReceiptJournal::kMost);
  EXPECT_FALSE(journal_->forget(sequence_of(oldest)));
}

}  // namespace
}  // namespace penstock::queue
