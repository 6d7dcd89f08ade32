# Makes the demo's file tree in $ARGV[0]: many ordinary files, and every odd kind.
use strict;
use warnings;
use Fcntl qw(:mode);
use Socket;

my $top = shift or die "where?";
chdir $top or die "$top: $!";
srand 42;

sub write_file {
    my ($name, $content) = @_;
    open my $file, '>:raw', $name or die "$name: $!";
    print $file $content;
    close $file or die "$name: $!";
}

mkdir 'uploads';
for my $directory (0 .. 29) {
    mkdir "uploads/$directory";
    for my $n (0 .. 99) {
        my $text = join ' ', map { "word$_" } map { int rand 5000 } 1 .. 50 + rand 2000;
        write_file("uploads/$directory/file-$n.txt", $text);
    }
    my $random = join '', map { pack 'L', int rand 2**32 } 1 .. 65536 + rand 65536;
    write_file("uploads/$directory/picture.jpg", $random);
}
mkdir 'odd';
my @names = ("quote'\"s", "new\nline", "back\\slash", "latin1-\xe9", "-dash", " space ", "ü-unicode", '.hidden', 'x' x 255);
write_file("odd/$_", "content of $_") for @names;
write_file('odd/empty', '');
write_file('odd/set-uid', "#!/bin/sh\n");
chmod 04755, 'odd/set-uid';
chmod 0400, 'odd/.hidden';
mkdir 'odd/empty directory';
mkdir 'odd/sticky';
chmod 01777, 'odd/sticky';
link 'odd/ü-unicode', 'odd/hard link' or die $!;
symlink 'loop-b', 'odd/loop-a';
symlink 'loop-a', 'odd/loop-b';
symlink '/nowhere', 'odd/dangling';
symlink '../uploads', 'odd/directory link';
system('mkfifo', 'odd/pipe') == 0 or die 'mkfifo';
open my $sparse, '>:raw', 'odd/sparse' or die $!;
print $sparse 'head';
seek $sparse, 250_000_000, 0;
print $sparse 'island';
truncate $sparse, 300_000_000;
close $sparse or die $!;
utime 86400, 123456789, 'odd/empty';
