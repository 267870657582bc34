// The whole of the test framework: UNIT_TEST(name) { CHECK(...); } and a list of both.
#pragma once
#include <atomic>
#include <cstdio>
#include <string>
#include <vector>

namespace unit_tests {

struct Test {
  std::string file, name;
  void (*run)();
};

inline std::vector<Test>& all() {
  static std::vector<Test> tests;
  return tests;
}

inline std::atomic<int>& failures() {
  static std::atomic<int> count = 0;
  return count;
}

struct Registration {
  Registration(const char* path, const char* name, void (*run)()) {
    std::string file(path);
    file = file.substr(file.find_last_of("/\\") + 1);
    all().push_back({file.substr(0, file.find('.')), name, run});
  }
};

inline void check(bool holds, const char* condition, const char* file, int line) {
  if (holds) return;
  if (++failures() <= 20) std::printf("%s:%d: %s does not hold\n", file, line, condition);
}

}  // namespace unit_tests

#define UNIT_TEST(name)                                                           \
  static void name();                                                             \
  static const unit_tests::Registration name##_registered(__FILE__, #name, name); \
  static void name()
#define CHECK(condition) unit_tests::check(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define CHECK_THROWS(type, expression)         \
  do {                                         \
    bool thrown = false;                       \
    try {                                      \
      (void)(expression);                      \
    } catch (const type&) {                    \
      thrown = true;                           \
    }                                          \
    CHECK(thrown && "an exception of " #type); \
  } while (false)
