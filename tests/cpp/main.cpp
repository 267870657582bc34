// unit_tests FILE...: runs the tests of these files (blocks, sweep ...). It fails where one of them does, or has none.
#include "check.h"

int main(int count, char** files) {
  for (int i = 1; i < count; ++i) {
    int run = 0;
    for (const unit_tests::Test& test : unit_tests::all()) {
      if (test.file != files[i]) continue;
      const int before = unit_tests::failures();
      test.run();
      ++run;
      std::printf("%s %s: %s\n", test.file.c_str(), test.name.c_str(),
                  unit_tests::failures() == before ? "passed" : "FAILED");
    }
    if (run == 0) {
      std::printf("%s has no tests\n", files[i]);
      return 2;
    }
  }
  return unit_tests::failures() ? 1 : 0;
}
