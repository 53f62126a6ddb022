#include "worker/queue/store/group_flusher.h"

#include <gtest/gtest.h>

#include <memory>
#include <semaphore>

namespace penstock::queue {
namespace {

struct Group {
  int number = 0;
  bool writes = true;
};

class GroupFlusherTest : public testing::Test {
 protected:
  // A disk that takes as long as the test says.
  void open() {
    flusher_ = std::make_unique<GroupFlusher<Group>>(GroupFlusher<Group>::Calls{
        .flush =
            [this] {
              ++flushes_;
              begun_.release();
              may_end_.acquire();
              return good_;
            },
        .on_flushed = [this](Group& group) { told_.push_back(group.number); },
        .on_failed = [this] { lost_.release(); }});
  }
  std::vector<int> lost() {
    std::vector<int> numbers;
    for (const Group& group : flusher_->take_lost()) {
      numbers.push_back(group.number);
    }
    return numbers;
  }
  using Numbers = std::vector<int>;

  std::counting_semaphore<> begun_{0}, may_end_{0}, lost_{0};
  int flushes_ = 0;  // read when nothing is being flushed
  bool good_ = true;
  Numbers told_;
  std::unique_ptr<GroupFlusher<Group>> flusher_;
};

TEST_F(GroupFlusherTest, GroupsThatGatherWhileOneIsFlushedShareTheNextFlush) {
  open();
  flusher_->add({1}, false);
  begun_.acquire();
  flusher_->add({2}, false);
  flusher_->add({3}, true);  // the caller does not wait behind another's flush
  may_end_.release(2);
  EXPECT_TRUE(flusher_->drain());
  EXPECT_EQ(flushes_, 2);
  EXPECT_EQ(told_, (Numbers{1, 2, 3}));
}

TEST_F(GroupFlusherTest, WhoIsAloneFlushesWithinTheCall) {
  open();
  may_end_.release();
  flusher_->add({1}, true);
  EXPECT_EQ(told_, Numbers{1});
}

TEST_F(GroupFlusherTest, WhatWritesNothingIsToldInOrderAndFlushesNothing) {
  open();
  flusher_->add({1, false}, true);
  EXPECT_EQ(told_, Numbers{1});
  flusher_->add({2}, false);
  begun_.acquire();
  flusher_->add({3, false}, true);
  EXPECT_EQ(told_, Numbers{1}) << "it may have read what is not on disk yet";
  may_end_.release();
  EXPECT_TRUE(flusher_->drain());
  EXPECT_EQ(told_, (Numbers{1, 2, 3}));
  EXPECT_EQ(flushes_, 1);
}

TEST_F(GroupFlusherTest, AfterAFailureNothingIsFlushedUntilTheOwnerResumes) {
  open();
  good_ = false;
  flusher_->add({1}, false);
  begun_.acquire();
  flusher_->add({2}, false);
  may_end_.release();
  lost_.acquire();
  EXPECT_FALSE(flusher_->drain());
  flusher_->add({3}, true);
  EXPECT_FALSE(flusher_->drain());
  EXPECT_EQ(lost(), (Numbers{1, 2, 3}));
  EXPECT_EQ(flushes_, 1);
  good_ = true;
  flusher_->resume();
  may_end_.release();
  flusher_->add({4}, false);
  EXPECT_TRUE(flusher_->drain());
  EXPECT_EQ(told_, Numbers{4});
  EXPECT_EQ(lost(), Numbers{}) << "nothing is lost";
}

TEST_F(GroupFlusherTest, WhatWaitsIsFlushedBeforeItGoes) {
  open();
  flusher_->add({1}, false);
  may_end_.release();
  flusher_.reset();
  EXPECT_EQ(told_, Numbers{1});
}

}  // namespace
}  // namespace penstock::queue
