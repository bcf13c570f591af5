/* Counts lines, words and bytes of every file, and finds the most frequent words.
 *
 *     wordcount [-n NUMBER] [-o CSV] [PATH...]
 *
 * Each PATH is a file or a folder, by default /inputs. The table and the NUMBER (10) most frequent
 * words go to stdout, the counts of each file also to CSV (/outputs/counts.csv, if there is a folder
 * /outputs). Exit codes: 0; 1 if something could not be read or written; 2 for invalid arguments.
 *
 * Lines and words are those of wc(1). Frequent words are counted in lower case; they consist of
 * ASCII letters, digits, bytes of other alphabets, and apostrophes between these.
 *
 * The same input gives the same output on every computer, independent of the order in which a file
 * system lists the files of a folder. So nodes that do not trust each other can compare their results.
 */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_CSV "/outputs/counts.csv"

typedef struct {
    uint64_t lines, words, bytes;
} Counts;

typedef struct {
    char *text; /* NULL: an empty place */
    uint64_t count;
} Word;

static struct {
    Word *places; /* a hash table with open addressing, at most half full */
    size_t capacity, used;
} table;

static Counts total;
static FILE *csv;
static bool failed;

static void *must(void *memory) {
    if (!memory) {
        fputs("wordcount: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void complain(const char *path) {
    fprintf(stderr, "wordcount: %s: %s\n", path, strerror(errno));
    failed = true;
}

/* --- frequent words ----------------------------------------------------------------- */

static Word *find(Word *places, size_t capacity, const char *text) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *c = text; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    size_t at = hash & (capacity - 1);
    while (places[at].text && strcmp(places[at].text, text)) at = (at + 1) & (capacity - 1);
    return &places[at];
}

static void grow(void) {
    size_t capacity = table.capacity ? 2 * table.capacity : 1 << 12;
    Word *places = must(calloc(capacity, sizeof *places));
    for (size_t i = 0; i < table.capacity; i++)
        if (table.places[i].text) *find(places, capacity, table.places[i].text) = table.places[i];
    free(table.places);
    table.places = places;
    table.capacity = capacity;
}

static void count_word(const char *text) {
    if (2 * table.used >= table.capacity) grow();
    Word *word = find(table.places, table.capacity, text);
    if (!word->text) {
        word->text = must(strdup(text));
        table.used++;
    }
    word->count++;
}

static int most_frequent_first(const void *left, const void *right) {
    const Word *a = left, *b = right;
    if (a->count != b->count) return a->count > b->count ? -1 : 1;
    return strcmp(a->text, b->text);
}

static void print_words(size_t wanted) {
    size_t found = 0;
    for (size_t i = 0; i < table.capacity; i++)
        if (table.places[i].text) table.places[found++] = table.places[i];
    qsort(table.places, found, sizeof *table.places, most_frequent_first);
    if (wanted > found) wanted = found;
    printf("\nthe %zu most frequent of %zu words\n", wanted, found);
    for (size_t i = 0; i < wanted; i++)
        printf("%10llu  %s\n", (unsigned long long)table.places[i].count, table.places[i].text);
}

/* A word while it is read byte by byte. */
static struct {
    char *text;
    size_t length, capacity;
    bool apostrophe; /* seen one, which belongs to the word if a letter follows */
} word;

static void append(char c) {
    if (word.length + 2 > word.capacity) {
        word.capacity = word.capacity ? 2 * word.capacity : 64;
        word.text = must(realloc(word.text, word.capacity));
    }
    word.text[word.length++] = c;
}

static void end_word(void) {
    word.apostrophe = false;
    if (!word.length) return;
    word.text[word.length] = '\0';
    count_word(word.text);
    word.length = 0;
}

static void read_byte(unsigned char c) {
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80) {
        if (word.apostrophe) append('\'');
        word.apostrophe = false;
        append((char)c);
    } else if (c == '\'' && word.length && !word.apostrophe) {
        word.apostrophe = true;
    } else {
        end_word();
    }
}

/* --- files and folders -------------------------------------------------------------- */

static void report(const char *path, Counts counts) {
    printf("%10llu %10llu %10llu  %s\n", (unsigned long long)counts.lines, (unsigned long long)counts.words,
           (unsigned long long)counts.bytes, path);
}

static void report_csv(const char *path, Counts counts) {
    if (!csv) return;
    fputc('"', csv);
    for (const char *c = path; *c; c++) {
        if (*c == '"') fputc('"', csv);
        fputc(*c, csv);
    }
    fprintf(csv, "\",%llu,%llu,%llu\n", (unsigned long long)counts.lines, (unsigned long long)counts.words,
            (unsigned long long)counts.bytes);
}

static void count_file(const char *path) {
    static unsigned char buffer[1 << 16];
    Counts counts = {0};
    bool inside = false;
    size_t length;
    FILE *file = fopen(path, "r");
    if (!file) {
        complain(path);
        return;
    }
    while ((length = fread(buffer, 1, sizeof buffer, file)) > 0) {
        counts.bytes += length;
        for (size_t i = 0; i < length; i++) {
            counts.lines += buffer[i] == '\n';
            bool space = isspace(buffer[i]);
            counts.words += inside && space;
            inside = !space;
            read_byte(buffer[i]);
        }
    }
    counts.words += inside;
    end_word();
    if (ferror(file)) complain(path);
    fclose(file);
    report(path, counts);
    report_csv(path, counts);
    total.lines += counts.lines;
    total.words += counts.words;
    total.bytes += counts.bytes;
}

static int by_name(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void count_path(const char *path);

static void count_folder(const char *path) {
    char **paths = NULL;
    size_t found = 0;
    struct dirent *entry;
    DIR *folder = opendir(path);
    if (!folder) {
        complain(path);
        return;
    }
    while ((entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        size_t length = strlen(path) + strlen(entry->d_name) + 2;
        paths = must(realloc(paths, (found + 1) * sizeof *paths));
        paths[found] = must(malloc(length));
        bool slash = path[strlen(path) - 1] == '/';
        snprintf(paths[found++], length, "%s%s%s", path, slash ? "" : "/", entry->d_name);
    }
    closedir(folder);
    if (found) qsort(paths, found, sizeof *paths, by_name);
    for (size_t i = 0; i < found; i++) {
        count_path(paths[i]);
        free(paths[i]);
    }
    free(paths);
}

/* Skips links: their targets are counted where they are. */
static void count_path(const char *path) {
    struct stat found;
    if (lstat(path, &found)) complain(path);
    else if (S_ISDIR(found.st_mode)) count_folder(path);
    else if (S_ISREG(found.st_mode)) count_file(path);
}

static int usage(void) {
    fputs("usage: wordcount [-n NUMBER] [-o CSV] [PATH...]\n", stderr);
    return 2;
}

int main(int argc, char **argv) {
    const char *output = DEFAULT_CSV;
    bool required = false;
    size_t wanted = 10;
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at += 2) {
        char *end = "";
        if (at + 1 == argc || strlen(argv[at]) != 2) return usage();
        if (argv[at][1] == 'n' && isdigit((unsigned char)argv[at + 1][0]))
            wanted = strtoul(argv[at + 1], &end, 10);
        else if (argv[at][1] == 'o')
            output = argv[at + 1], required = true;
        else
            return usage();
        if (*end) return usage();
    }
    csv = fopen(output, "w");
    if (!csv && required) complain(output);
    if (csv) fputs("file,lines,words,bytes\n", csv);
    printf("     lines      words      bytes  file\n");
    if (at == argc) count_path("/inputs");
    for (; at < argc; at++) count_path(argv[at]);
    report("total", total);
    report_csv("total", total);
    print_words(wanted);
    if (csv && fclose(csv)) complain(output);
    if (fclose(stdout)) complain("stdout");
    return failed;
}
